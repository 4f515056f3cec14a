"""One edit: load the new version everywhere, move the split, let the old one finish, unload it."""

from collections.abc import Mapping
from typing import Any

from motet_api.reasons import AdapterReason
from motet_operator.keys import Kind
from tests.operator.factories import NAMESPACE, raw_adapter
from tests.operator.test_reconciler import IP, World, serving_world


def edited(world: World, *versions: str, **traffic: int) -> None:
    """The user applies other versions."""
    status = dict(world.status(Kind.LORA_ADAPTER, "voice"))
    raw = raw_adapter(versions=versions, traffic=traffic or None, status=status)
    world.cluster.put(Kind.LORA_ADAPTER, raw)


def told(world: World) -> set[str]:
    document = world.runtime.told[IP]
    assert document is not None
    return {entry.id for entry in document.adapters}


def split(world: World) -> dict[str, int]:
    return {entry["version"]: entry["weight"] for entry in world.status(Kind.LORA_ADAPTER, "voice")["traffic"]}


def versions(world: World) -> dict[str, Mapping[str, Any]]:
    return {entry["name"]: entry for entry in world.status(Kind.LORA_ADAPTER, "voice")["versions"]}


def reason(world: World, version: str, kind: str) -> tuple[str, str]:
    (found,) = [entry for entry in versions(world)[version]["conditions"] if entry["type"] == kind]
    return found["status"], found["reason"]


async def test_the_old_version_serves_until_the_new_one_can_and_leaves_afterwards() -> None:
    world = await serving_world()
    world.runtime.broken["voice@v2"] = AdapterReason.LOADING
    edited(world, "v2")
    for _ in range(5):
        await world.run()
        assert (told(world), split(world)) == ({"voice@v1", "voice@v2"}, {"v1": 1})
    assert reason(world, "v1", "Retiring") == ("False", "Waiting")
    assert world.ready(Kind.LORA_ADAPTER, "voice") == ("False", "Progressing")

    world.runtime.broken.clear()
    await world.run()
    assert (told(world), split(world)) == ({"voice@v1", "voice@v2"}, {"v2": 1})
    await world.run()
    assert reason(world, "v1", "Retiring") == ("True", "Draining")
    assert world.ready(Kind.LORA_ADAPTER, "voice") == ("True", "Ready")
    for _ in range(8):
        await world.run()
        assert told(world) == {"voice@v1", "voice@v2"}, "no gateway is known: it has ten seconds"
    for _ in range(4):
        await world.run()
    assert set(versions(world)) == {"v2"}
    assert told(world) == {"voice@v2"}
    assert await world.run() == []


async def test_a_version_without_weight_stays_resident() -> None:
    world = await serving_world()
    edited(world, "v1", "v2", v2=1)
    await world.converge()
    assert (told(world), split(world)) == ({"voice@v1", "voice@v2"}, {"v2": 1})
    assert "Retiring" not in {entry["type"] for entry in versions(world)["v1"]["conditions"]}


async def test_a_broken_successor_leaves_the_old_version_where_it_is() -> None:
    world = await serving_world()
    world.runtime.broken["voice@v2"] = AdapterReason.CORRUPT_WEIGHTS
    edited(world, "v2")
    for _ in range(20):
        await world.run()
    assert (told(world), split(world)) == ({"voice@v1", "voice@v2"}, {"v1": 1})
    assert world.ready(Kind.LORA_ADAPTER, "voice") == ("False", "CorruptWeights")
    assert reason(world, "v2", "Verified") == ("False", "CorruptWeights")
    assert reason(world, "v2", "Resolved")[0] == "Unknown"


async def test_a_version_that_comes_back_is_kept() -> None:
    world = await serving_world()
    edited(world, "v2")
    for _ in range(4):
        await world.run()
    assert reason(world, "v1", "Retiring") == ("True", "Draining")
    edited(world, "v1", "v2", v1=1)
    await world.converge()
    assert (told(world), split(world)) == ({"voice@v1", "voice@v2"}, {"v1": 1})
    assert reason(world, "v1", "Retiring")[0] == "False"


async def test_a_version_that_nobody_holds_leaves_at_once() -> None:
    world = await serving_world()
    world.runtime.broken["voice@v2"] = AdapterReason.CORRUPT_WEIGHTS
    edited(world, "v1", "v2", v1=1)
    await world.converge()
    edited(world, "v1")
    await world.converge()
    assert set(versions(world)) == {"v1"}
    assert told(world) == {"voice@v1"}


async def test_an_adapter_of_another_namespace_that_is_not_allowed_is_not_told() -> None:
    world = await serving_world()
    raw = raw_adapter("guest")
    raw["metadata"]["namespace"] = "elsewhere"
    raw["spec"]["modelRef"]["namespace"] = NAMESPACE
    world.cluster.put(Kind.LORA_ADAPTER, raw)
    await world.converge()
    assert told(world) == {"voice@v1"}
    status = world.cluster.objects[Kind.LORA_ADAPTER, "elsewhere", "guest"]["status"]
    conditions = {entry["type"]: (entry["status"], entry["reason"]) for entry in status["conditions"]}
    assert conditions["Ready"] == ("False", "NotAllowed")
    assert conditions["Stalled"] == ("True", "NotAllowed")
    assert world.ready(Kind.LORA_ADAPTER, "voice") == ("True", "Ready")
