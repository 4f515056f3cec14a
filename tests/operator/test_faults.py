"""A rollout that is cut off at any write comes to the same end, and on the way nothing is served that is not there."""

import copy
import json
from typing import Any

import pytest

from motet_api.wire import VersionOutcome
from motet_operator.errors import ConflictError
from motet_operator.keys import Kind
from tests.operator.adapter_world import AdapterWorld, FakePod, KilledError, digest_of
from tests.operator.factories import KEY, NAMESPACE, OTHER_DIGEST, raw_adapter, raw_model
from tests.operator.test_reconciler import ready_pod

IPS = ("10.0.0.1", "10.0.0.2")
STEPS = [{"weight": 30, "bakeSeconds": 2}, {"weight": 60, "bakeSeconds": 1}]
ROLLOUT = {"steps": STEPS, "limits": {"errorPercent": 5, "minRequests": 1}}
MOST_PASSES = 60


async def world_with_v7() -> AdapterWorld:
    """Two pods that serve v7, a store and a gateway."""
    world = AdapterWorld(store=True, gateway=True)
    world.cluster.put(Kind.MODEL_DEPLOYMENT, raw_model(replicas=2))
    for number, ip in enumerate(IPS):
        world.pods.pods[ip] = FakePod()
        world.cluster.put(Kind.POD, ready_pod(f"llama-{number}", ip))
    world.cluster.put(Kind.LORA_ADAPTER, remote(raw_adapter(versions=("v7",))))
    await world.converge()
    return world


def remote(raw: dict[str, Any]) -> dict[str, Any]:
    """The adapter with versions that the store fetches."""
    for version in raw["spec"]["versions"]:
        version["source"] = {"uri": f"s3://bucket/{version['name']}"}
    return raw


def edit(world: AdapterWorld) -> None:
    """One edit: v8 in the place of v7, step by step."""
    raw = remote(raw_adapter(versions=("v8",), status=world.status()))
    raw["spec"]["rollout"] = ROLLOUT
    raw["metadata"]["generation"] = 2
    world.cluster.put(Kind.LORA_ADAPTER, raw)
    assert world.gateway is not None
    world.gateway.outcomes["v8"] = VersionOutcome(version="v8", requests=100)


def check(world: AdapterWorld) -> None:
    """What must hold at every moment."""
    gateway = world.gateway
    assert gateway is not None
    served = set(world.split()) | {target.version for target in gateway.following.get((NAMESPACE, "voice"), [])}
    known = {entry["name"] for entry in world.status()["versions"]}
    for ip in IPS:
        resident = {name for name, reason in world.pods.pods[ip].held.items() if reason == "Resident"}
        assert {f"voice@{version}" for version in served} <= resident, "routed to and not resident"
    assert served <= known, "routed to and not in status.versions"


async def finish(world: AdapterWorld) -> str:
    """Run to the end; returns what is then the case, without the times at which it came about."""
    for _ in range(MOST_PASSES):
        await world.run()
        check(world)
    status = json.loads(json.dumps(world.status()))
    for holder in (status, *status["versions"]):
        for condition in holder["conditions"]:
            del condition["lastTransitionTime"]
    status["rollout"].pop("stepStarted", None)
    return json.dumps([status, [sorted(world.told(ip)) for ip in IPS]], sort_keys=True)


async def writes_of_a_rollout() -> int:
    """How many writes an undisturbed rollout makes."""
    world = await world_with_v7()
    edit(world)
    world.restart(writes=1_000)
    await finish(world)
    assert world.cluster.fuse.left is not None
    return 1_000 - world.cluster.fuse.left


async def test_an_undisturbed_rollout_goes_step_by_step() -> None:
    world = await world_with_v7()
    edit(world)
    seen: list[dict[str, int]] = []
    for _ in range(MOST_PASSES):
        await world.run()
        check(world)
        shares = {name: round(100 * weight / sum(world.split().values())) for name, weight in world.split().items()}
        if not seen or seen[-1] != shares:
            seen.append(shares)
    assert seen == [{"v7": 100}, {"v8": 30, "v7": 70}, {"v8": 60, "v7": 40}, {"v8": 100}]
    assert world.condition("RolledOut") == ("True", "RolledOut")
    assert world.condition("Ready") == ("True", "Ready")
    assert [sorted(world.told(ip)) for ip in IPS] == [["voice@v8"]] * 2
    said = [(event["type"], event["reason"]) for event in world.cluster.events if "RolledOut is" in event["note"]]
    assert said == [("Normal", "Baking"), ("Normal", "Baking"), ("Normal", "RolledOut")]


async def test_cut_off_at_every_write_it_comes_to_the_same_end() -> None:
    undisturbed = await world_with_v7()
    edit(undisturbed)
    expected = await finish(undisturbed)
    count = await writes_of_a_rollout()
    assert count > 20
    for cut in range(1, count + 1):
        world = await world_with_v7()
        edit(world)
        world.restart(writes=cut)
        with pytest.raises(KilledError):
            for _ in range(MOST_PASSES):
                await world.run()
                check(world)
        check(world)
        world.restart()
        assert await finish(world) == expected, f"cut off after write {cut}"


async def test_a_version_that_errors_is_taken_back() -> None:
    world = await world_with_v7()
    edit(world)
    assert world.gateway is not None
    world.gateway.outcomes["v8"] = VersionOutcome(version="v8", requests=100, errors=50)
    for _ in range(MOST_PASSES):
        await world.run()
        check(world)
    assert world.split() == {"v7": 1}
    assert world.condition("RolledOut") == ("False", "RolledBack")
    assert world.condition("Stalled") == ("True", "RolledBack")
    assert "50% of 100 requests failed" in world.message("RolledOut")
    warnings = [reason for kind, _, reason in world.cluster.said() if kind == "Warning"]
    assert warnings.count("RolledBack") <= 2
    assert "RolledBack" in warnings
    assert {entry["name"] for entry in world.status()["versions"]} == {"v7", "v8"}, "v7 serves on, out of spec"


async def test_a_gateway_with_a_request_left_keeps_the_old_version() -> None:
    world = await world_with_v7()
    raw = remote(raw_adapter(versions=("v8",), status=world.status()))
    world.cluster.put(Kind.LORA_ADAPTER, raw)
    assert world.gateway is not None
    world.gateway.outcomes["v7"] = VersionOutcome(version="v7", in_flight=1)
    for _ in range(30):
        await world.run()
    assert sorted(world.told(IPS[0])) == ["voice@v7", "voice@v8"]
    assert world.condition("Retiring", "v7") == ("True", "Draining")
    world.gateway.outcomes.clear()
    world.gateway.silent = True
    for _ in range(30):
        await world.run()
    assert sorted(world.told(IPS[0])) == ["voice@v7", "voice@v8"], "silence is not an answer"
    world.gateway.silent = False
    await world.converge()
    assert sorted(world.told(IPS[0])) == ["voice@v8"]
    asked = world.gateway.asked
    for _ in range(5):
        await world.run()
    assert world.gateway.asked == asked, "nobody is asked once nothing hangs on it"


async def lead_from(world: AdapterWorld, seen: dict[Any, Any]) -> None:
    """A new leader looks, three times, while its watches still have what was seen then."""
    world.restart()
    for (kind, _, _), raw in seen.items():
        world.index.put(kind, raw)
    events = len(world.cluster.events)
    for _ in range(3):
        world.tick()
        with pytest.raises(ConflictError):
            await world.reconciler.reconcile(KEY)
    assert len(world.cluster.events) == events, "what was not written is not told"


async def test_a_new_leader_that_is_behind_does_not_undo_a_rollback() -> None:
    world = await world_with_v7()
    edit(world)
    assert world.gateway is not None
    world.gateway.outcomes["v8"] = VersionOutcome(version="v8", requests=0)
    for _ in range(8):
        await world.run()
    behind = copy.deepcopy(world.cluster.objects)
    world.gateway.outcomes["v8"] = VersionOutcome(version="v8", requests=100, errors=100)
    for _ in range(8):
        await world.run()
    assert world.condition("RolledOut") == ("False", "RolledBack")
    world.gateway.outcomes["v8"] = VersionOutcome(version="v8", requests=100)
    await lead_from(world, behind)
    for _ in range(MOST_PASSES):
        await world.run()
        assert world.condition("RolledOut") == ("False", "RolledBack")
        assert world.split() == {"v7": 1}


async def test_a_new_leader_that_is_behind_does_not_record_another_digest() -> None:
    world = AdapterWorld(store=True)
    world.cluster.put(Kind.MODEL_DEPLOYMENT, raw_model())
    world.pods.pods[IPS[0]] = FakePod()
    world.cluster.put(Kind.POD, ready_pod("llama-0", IPS[0]))
    world.cluster.put(Kind.LORA_ADAPTER, remote(raw_adapter(versions=("v7",))))
    behind = copy.deepcopy(world.cluster.objects)
    await world.converge()
    assert world.store is not None
    world.store.moved["s3://bucket/v7"] = OTHER_DIGEST
    await lead_from(world, behind)
    await world.converge()
    assert world.status()["versions"][0]["digest"] == digest_of("s3://bucket/v7")
    assert world.told(IPS[0])["voice@v7"].digest == digest_of("s3://bucket/v7")


async def test_a_leader_is_never_in_its_own_way() -> None:
    world = await world_with_v7()
    edit(world)
    world.restart()
    world.cluster.show(world.index)
    for _ in range(MOST_PASSES):
        # The watches say nothing of what it writes; it knows it from the answers.
        world.tick()
        await world.reconciler.reconcile(KEY)
    assert world.split() == {"v8": 1}
    assert world.condition("Ready") == ("True", "Ready")
    assert world.cluster.conflicts == 0
