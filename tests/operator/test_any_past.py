"""Whatever happens in whatever order: what is routed to stays told to every pod, and in the end all is as spec says."""

import asyncio
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from motet_api.reasons import AdapterReason
from motet_operator.keys import Kind
from tests.operator.adapter_world import AdapterWorld, FakePod
from tests.operator.factories import NAMESPACE, raw_adapter, raw_model
from tests.operator.test_reconciler import ready_pod

IPS = ("10.0.0.1", "10.0.0.2")
SPECS: dict[str, dict[str, int]] = {
    "v1": {"v1": 1},
    "v2": {"v2": 1},
    "half": {"v1": 1, "v2": 1},
    "v3, v1 for those who name it": {"v1": 0, "v3": 1},
}


def edit(world: AdapterWorld, traffic: dict[str, int]) -> None:
    status = world.status() if "status" in world.cluster.objects[Kind.LORA_ADAPTER, NAMESPACE, "voice"] else None
    world.cluster.put(Kind.LORA_ADAPTER, raw_adapter(versions=tuple(traffic), traffic=traffic, status=status))


def restart_pod(world: AdapterWorld, ip: str) -> None:
    old = world.pods.pods[ip]
    world.pods.pods[ip] = FakePod(silent=old.silent, broken=old.broken)


def toggle_pod(world: AdapterWorld, ip: str) -> None:
    world.pods.pods[ip].silent = not world.pods.pods[ip].silent


def toggle_gateway(world: AdapterWorld) -> None:
    assert world.gateway is not None
    world.gateway.silent = not world.gateway.silent


def toggle_sight(world: AdapterWorld) -> None:
    assert world.gateway is not None
    world.gateway.blind = not world.gateway.blind


def toggle_trouble(world: AdapterWorld, version: str, reason: AdapterReason) -> None:
    for pod in world.pods.pods.values():
        if pod.broken.pop(f"voice@{version}", None) is None:
            pod.broken[f"voice@{version}"] = reason


EVENTS: dict[str, Callable[[AdapterWorld], Any]] = {
    **{f"spec: {name}": lambda world, traffic=traffic: edit(world, traffic) for name, traffic in SPECS.items()},  # type: ignore[misc]
    **{f"pod {ip} restarts": lambda world, ip=ip: restart_pod(world, ip) for ip in IPS},  # type: ignore[misc]
    **{f"pod {ip} falls silent or speaks": lambda world, ip=ip: toggle_pod(world, ip) for ip in IPS},  # type: ignore[misc]
    "the gateway falls silent or speaks": toggle_gateway,
    "the gateway sees no changes or does": toggle_sight,
    "v2 is slow or not": lambda world: toggle_trouble(world, "v2", AdapterReason.LOADING),
    "v3 is broken or not": lambda world: toggle_trouble(world, "v3", AdapterReason.CORRUPT_WEIGHTS),
    "the operator restarts": lambda world: world.restart(),
    "time passes": lambda world: world.tick(30),
}


def check(world: AdapterWorld) -> None:
    """What a gateway may send a request to is in status, and every pod that was told anything was told of it."""
    assert world.gateway is not None
    served = set(world.split()) | {target.version for target in world.gateway.following.get((NAMESPACE, "voice"), [])}
    assert served <= {entry["name"] for entry in world.status()["versions"]}
    for ip, pod in world.pods.pods.items():
        if pod.document is not None:
            assert {f"voice@{version}" for version in served} <= set(world.told(ip)), ip


async def live(past: list[tuple[str, int]]) -> None:
    world = AdapterWorld(gateway=True)
    world.cluster.put(Kind.MODEL_DEPLOYMENT, raw_model(replicas=2))
    world.cluster.put(Kind.LORA_ADAPTER, raw_adapter())
    for number, ip in enumerate(IPS):
        world.pods.pods[ip] = FakePod()
        world.cluster.put(Kind.POD, ready_pod(f"llama-{number}", ip))
    await world.converge()
    for event, passes in past:
        EVENTS[event](world)
        for _ in range(passes):
            await world.run()
            check(world)
    # All is well again: then all is as spec says.
    assert world.gateway is not None
    world.gateway.silent = world.gateway.blind = False
    for pod in world.pods.pods.values():
        pod.silent, pod.broken = False, {}
    await world.converge()
    spec = world.cluster.objects[Kind.LORA_ADAPTER, NAMESPACE, "voice"]["spec"]
    wanted = {target["version"]: target["weight"] for target in spec.get("traffic", [{"version": "v1", "weight": 1}])}
    assert world.split() == {name: weight for name, weight in wanted.items() if weight}
    assert world.condition("Ready") == ("True", "Ready")
    for ip in IPS:
        assert set(world.told(ip)) == {f"voice@{version['name']}" for version in spec["versions"]}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(EVENTS)), st.integers(0, 4)), max_size=10))
def test_any_past(past: list[tuple[str, int]]) -> None:
    asyncio.run(live(past))
