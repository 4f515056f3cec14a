"""Pods that come, go, or fail alone: adapters follow them, and what is said of adapters follows too."""

from datetime import timedelta
from typing import Any

import pytest

from motet_api.reasons import AdapterReason
from motet_operator.keys import Kind
from tests.operator.adapter_world import AdapterWorld, FakePod, at
from tests.operator.factories import NAMESPACE, NOW, raw_adapter, raw_model
from tests.operator.test_reconciler import IP, ready_pod

NEW, NEW_IP = "llama-b", "10.0.0.2"
BOTH = {"v1": 1, "v2": 1}


async def world_of(*adapters: dict[str, Any]) -> AdapterWorld:
    """A model with one pod that serves these adapters."""
    world = AdapterWorld()
    world.cluster.put(Kind.MODEL_DEPLOYMENT, raw_model())
    world.pods.pods[IP] = FakePod()
    world.cluster.put(Kind.POD, ready_pod())
    for raw in adapters:
        world.cluster.put(Kind.LORA_ADAPTER, raw)
    await world.converge()
    return world


def comes(world: AdapterWorld, ready: str = "False") -> FakePod:
    """A second pod is there, or has become ready."""
    world.cluster.put(Kind.POD, ready_pod(NEW, NEW_IP, ready))
    return world.pods.pods.setdefault(NEW_IP, FakePod())


def goes(world: AdapterWorld, name: str, ip: str) -> None:
    """A pod is gone, and the watch says so."""
    world.index.remove(Kind.POD, world.cluster.objects.pop((Kind.POD, NAMESPACE, name)))
    del world.pods.pods[ip]


def counts(world: AdapterWorld, name: str = "voice") -> list[tuple[int, int]]:
    """On how many pods each version is, of how many."""
    return [(entry["readyOn"], entry["pods"]) for entry in world.status(name)["versions"]]


async def test_a_new_pod_gets_every_adapter_and_counts_once_it_serves() -> None:
    world = await world_of(raw_adapter(), raw_adapter("topic"))
    comes(world)
    await world.converge()
    assert set(world.told(NEW_IP)) == {"voice@v1", "topic@v1"}
    assert (counts(world), world.condition("Ready")) == ([(1, 1)], ("True", "Ready"))
    comes(world, ready="True")
    await world.converge()
    assert (counts(world), counts(world, "topic")) == ([(2, 2)], [(2, 2)])


async def test_a_pod_that_is_gone_counts_no_more_and_without_any_it_is_not_ready() -> None:
    world = await world_of(raw_adapter())
    comes(world, ready="True")
    await world.converge()
    goes(world, "llama-a", IP)
    await world.converge()
    assert (counts(world), world.condition("Ready")) == ([(1, 1)], ("True", "Ready"))
    goes(world, NEW, NEW_IP)
    await world.converge()
    assert (counts(world), world.condition("Ready")) == ([(0, 0)], ("False", "NoPods"))
    assert world.split() == {"v1": 1}, "what is served once a pod is back"


async def test_a_pod_that_restarts_in_place_is_told_again() -> None:
    world = await world_of(raw_adapter())
    world.pods.pods[IP] = FakePod()
    await world.run()
    assert world.pods.pods[IP].document is not None, "told in the first pass that sees it"
    await world.converge()
    assert world.condition("Ready") == ("True", "Ready")


@pytest.mark.parametrize("reason", [AdapterReason.LOAD_FAILED, AdapterReason.CORRUPT_WEIGHTS])
async def test_one_pod_that_cannot_load_a_version_takes_it_from_nobody(reason: AdapterReason) -> None:
    world = await world_of(raw_adapter(versions=("v1", "v2"), traffic=BOTH), raw_adapter("topic"))
    assert world.split() == BOTH
    comes(world, ready="True").broken["voice@v2"] = reason
    await world.converge()
    assert world.split() == BOTH, "the other pod serves it"
    assert counts(world) == [(2, 2), (1, 2)]
    assert world.condition("Ready") == ("False", reason)
    assert f"on {NEW}" in world.message("Ready")
    assert world.condition("Ready", name="topic") == ("True", "Ready")

    goes(world, "llama-a", IP)
    await world.converge()
    expected = BOTH if reason.transient else {"v1": 1}
    assert world.split() == expected, "no pod serves it any more"


async def test_a_pod_with_less_room_takes_an_adapter_from_no_other() -> None:
    world = await world_of(raw_adapter("a"), raw_adapter("b"))
    world.pods.pods[IP].capacity = 100
    await world.converge()
    for ready in ("False", "True"):
        comes(world, ready).capacity = 15
        await world.converge()
        assert (set(world.told(IP)), set(world.told(NEW_IP))) == ({"a@v1", "b@v1"}, {"a@v1"})
        assert world.split("b") == {"v1": 1}
        assert world.condition("Ready", name="b") == ("False", "DoesNotFit")
        assert f"5 bytes are missing on {NEW}" in world.message("Ready", name="b")
    assert (counts(world, "a"), counts(world, "b")) == ([(2, 2)], [(1, 2)])

    world.pods.pods[NEW_IP].capacity = 20
    await world.converge()
    assert (counts(world, "b"), world.condition("Ready", name="b")) == ([(2, 2)], ("True", "Ready"))


@pytest.mark.parametrize("weight", [1, 0])
async def test_a_new_adapter_takes_no_room_from_one_that_serves(weight: int) -> None:
    """Its size is known only once a pod has loaded it, and its name comes first."""
    world = await world_of(made(raw_adapter("z"), days=9))
    world.pods.pods[IP].capacity = 25
    await world.converge()
    versions, traffic = ("v1", "v2"), {"v1": 1, "v2": weight}
    world.cluster.put(Kind.LORA_ADAPTER, made(raw_adapter("a", versions=versions, traffic=traffic), days=1))
    await world.converge()
    assert set(world.told(IP)) == {"z@v1", "a@v1"}
    assert world.condition("Ready", name="z") == ("True", "Ready")
    assert world.condition("Resident", "v2", "a") == ("False", "DoesNotFit")


def made(raw: dict[str, Any], days: int) -> dict[str, Any]:
    """An adapter that was made so many days ago."""
    raw["metadata"]["creationTimestamp"] = at(NOW - timedelta(days=days))
    return raw
