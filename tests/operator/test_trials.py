"""What becomes of a version on trial when pods, other versions or edits of spec get in the way of its rollout."""

import pytest

from motet_api.reasons import AdapterReason
from motet_api.wire import VersionOutcome
from motet_operator.keys import Kind
from tests.operator.adapter_world import AdapterWorld, FakePod, digest_of
from tests.operator.factories import NAMESPACE, raw_adapter, raw_model
from tests.operator.test_faults import IPS, MOST_PASSES, ROLLOUT, check, edit, remote, world_with_v7
from tests.operator.test_reconciler import ready_pod


async def midway() -> AdapterWorld:
    """A rollout at its first step, of which nobody has seen a request yet."""
    world = await world_with_v7()
    edit(world)
    assert world.gateway is not None
    world.gateway.outcomes["v8"] = VersionOutcome(version="v8", requests=0)
    for _ in range(8):
        await world.run()
    assert world.split() == {"v8": 30_000, "v7": 70_000}
    return world


@pytest.mark.parametrize("action", ["Run", "Abort"])
async def test_a_silent_pod_does_not_keep_a_version_that_is_taken_back(action: str) -> None:
    world = await midway()
    assert world.gateway is not None
    world.pods.pods[IPS[1]].silent = True
    world.gateway.outcomes["v8"] = VersionOutcome(version="v8", requests=100, errors=100)
    raw = world.cluster.objects[Kind.LORA_ADAPTER, NAMESPACE, "voice"]
    raw["spec"]["rollout"] = {**ROLLOUT, "action": action}
    world.cluster.put(Kind.LORA_ADAPTER, raw)
    for _ in range(3):
        await world.run()
    assert world.split() == {"v7": 1}
    assert world.condition("RolledOut") == ("False", "RolledBack" if action == "Run" else "Aborted")
    assert "not yet in effect" not in world.message("RolledOut")


async def test_taken_back_is_said_to_wait_while_nothing_of_the_old_split_serves() -> None:
    world = await midway()
    assert world.gateway is not None
    for pod in world.pods.pods.values():
        pod.broken["voice@v7"] = AdapterReason.CORRUPT_WEIGHTS
    world.gateway.outcomes["v8"] = VersionOutcome(version="v8", requests=100, errors=100)
    for _ in range(5):
        await world.run()
    assert world.split() == {"v8": 30_000, "v7": 70_000}
    assert world.condition("RolledOut") == ("False", "RolledBack")
    assert "the split before the rollout is not yet in effect" in world.message("RolledOut")
    for pod in world.pods.pods.values():
        pod.broken.clear()
    await world.converge()
    assert world.split() == {"v7": 1}
    assert "not yet in effect" not in world.message("RolledOut")


async def test_an_edit_back_to_the_old_split_goes_there_at_once() -> None:
    world = await midway()
    raw = remote(raw_adapter(versions=("v7",), status=world.status()))
    raw["spec"]["rollout"] = ROLLOUT
    raw["metadata"]["generation"] = 3
    world.cluster.put(Kind.LORA_ADAPTER, raw)
    assert world.gateway is not None
    world.gateway.outcomes["v7"] = VersionOutcome(version="v7", requests=100, errors=100)
    await world.run()
    assert world.split() == {"v7": 1}
    await world.converge()
    assert "rollout" not in world.status()
    assert world.condition("RolledOut") == ("True", "RolledOut")


def reuse_the_name_of_v7(world: AdapterWorld, **traffic: int) -> None:
    """spec, which v7 has left, has a v7 again, from somewhere else."""
    raw = world.cluster.objects[Kind.LORA_ADAPTER, NAMESPACE, "voice"]
    raw["spec"]["versions"].append({"name": "v7", "source": {"uri": "s3://bucket/other"}})
    raw["spec"]["traffic"] = [{"version": name, "weight": weight} for name, weight in traffic.items()]
    raw["metadata"]["generation"] = 3
    world.cluster.put(Kind.LORA_ADAPTER, raw)


def old_v7(world: AdapterWorld) -> tuple[str, str]:
    """Source and digest of v7 as status has them."""
    (found,) = [entry for entry in world.status()["versions"] if entry["name"] == "v7"]
    return found["source"]["uri"], found["digest"]


async def test_a_name_that_is_used_again_midway_changes_nothing_of_what_serves() -> None:
    world = await midway()
    before, store = old_v7(world), world.store
    assert store is not None
    store.asked.clear()
    reuse_the_name_of_v7(world, v8=1)
    for _ in range(8):
        await world.run()
        check(world)
    assert world.split() == {"v8": 30_000, "v7": 70_000}
    assert (old_v7(world), world.told(IPS[0])["voice@v7"].digest) == (before, before[1])
    assert not any(request.uri == "s3://bucket/other" for query in store.asked for request in query)
    assert world.condition("Ready") == ("False", "InvalidSpec")
    assert world.condition("Stalled") == ("True", "InvalidSpec")
    assert "version v7 was s3://bucket/v7" in world.message("Ready")
    assert "choose another name" in world.message("Ready")


async def test_a_name_that_is_used_again_means_the_new_source_once_the_old_one_is_gone() -> None:
    world = await midway()
    reuse_the_name_of_v7(world, v8=1)
    assert world.gateway is not None
    world.gateway.outcomes["v7"] = VersionOutcome(version="v7", in_flight=1)
    world.gateway.outcomes["v8"] = VersionOutcome(version="v8", requests=100)
    for _ in range(MOST_PASSES):
        await world.run()
        check(world)
    assert world.split() == {"v8": 1}
    assert old_v7(world)[0] == "s3://bucket/v7", "a request is left of it"
    del world.gateway.outcomes["v7"]
    await world.converge()
    assert old_v7(world) == ("s3://bucket/other", digest_of("s3://bucket/other"))
    assert world.told(IPS[0])["voice@v7"].uri == "s3://bucket/other"
    assert world.condition("Ready") == ("True", "Ready")


async def test_a_share_for_a_name_that_is_taken_waits_and_limits_hold_meanwhile() -> None:
    world = await midway()
    reuse_the_name_of_v7(world, v7=1)
    for _ in range(8):
        await world.run()
        check(world)
    assert world.split() == {"v8": 30_000, "v7": 70_000}
    assert world.gateway is not None
    world.gateway.outcomes["v8"] = VersionOutcome(version="v8", requests=100, errors=100)
    for _ in range(8):
        await world.run()
        check(world)
    assert world.split() == {"v7": 1}
    assert old_v7(world)[0] == "s3://bucket/v7"
    assert world.condition("RolledOut") == ("False", "RolledBack")
    assert world.condition("Ready") == ("False", "InvalidSpec")


async def test_a_version_that_fails_midway_leaves_nothing_more_to_the_one_on_trial() -> None:
    world = await midway()
    for pod in world.pods.pods.values():
        pod.broken["voice@v7"] = AdapterReason.CORRUPT_WEIGHTS
    for _ in range(8):
        await world.run()
    assert world.split() == {"v8": 30_000, "v7": 70_000}


async def test_limits_without_a_gateway_to_ask_say_so() -> None:
    world = AdapterWorld(store=True)
    world.cluster.put(Kind.MODEL_DEPLOYMENT, raw_model())
    world.pods.pods[IPS[0]] = FakePod()
    world.cluster.put(Kind.POD, ready_pod("llama-0", IPS[0]))
    world.cluster.put(Kind.LORA_ADAPTER, remote(raw_adapter(versions=("v7",))))
    await world.converge()
    raw = remote(raw_adapter(versions=("v8",), status=world.status()))
    raw["spec"]["rollout"] = ROLLOUT
    raw["metadata"]["generation"] = 2
    world.cluster.put(Kind.LORA_ADAPTER, raw)
    for _ in range(10):
        await world.run()
    for kind in ("RolledOut", "Ready"):
        assert world.condition(kind) == ("False", "GatewayNotConfigured")
        assert "option --gateway-service" in world.message(kind)
    assert world.condition("Stalled") == ("True", "GatewayNotConfigured")
    assert set(world.split()) == {"v7", "v8"}, "it stays at its first step"
    raw = remote(raw_adapter(versions=("v8",), status=world.status()))
    raw["spec"]["rollout"] = {"steps": ROLLOUT["steps"]}
    raw["metadata"]["generation"] = 3
    world.cluster.put(Kind.LORA_ADAPTER, raw)
    await world.converge()
    assert world.split() == {"v8": 1}, "without limits there is nothing to ask"
