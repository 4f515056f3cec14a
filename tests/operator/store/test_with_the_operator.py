"""The operator's passes and a real store: from a source to a pod, and why not; and when the store has lost all."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from motet_operator.clients.store_client import StoreClient
from motet_operator.keys import Kind
from tests.operator.adapter_world import AdapterWorld, FakePod
from tests.operator.factories import raw_adapter, raw_model
from tests.operator.store.material import BASE, FakeSources, Folder, config_bytes, digest_of
from tests.operator.store.running import running
from tests.operator.store.test_keeping import GOOD
from tests.operator.test_reconciler import IP, ready_pod

WANTED = {
    "good": ("True", "Ready"),
    "large": ("False", "BaseMismatch"),
    "broken": ("False", "CorruptWeights"),
    "absent": ("False", "SourceNotFound"),
}


def remote(name: str) -> dict[str, Any]:
    """An adapter of this name, from the folder of this name."""
    raw = raw_adapter(name)
    raw["spec"]["versions"][0]["source"] = {"uri": f"https://host/{name}"}
    return raw


async def test_a_good_adapter_among_bad_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.operator.adapter_world.BASE", BASE)
    sources = FakeSources(
        good=Folder(GOOD),
        large=Folder(GOOD | {"adapter_config.json": config_bytes(r=512)}),
        broken=Folder(GOOD | {"adapter_model.safetensors": b"short"}),
    )
    names = sorted(WANTED)
    async with running(tmp_path, sources) as store:
        world = AdapterWorld(store=StoreClient(store.session, store.admin_url))
        world.cluster.put(Kind.MODEL_DEPLOYMENT, raw_model())
        for name in names:
            world.cluster.put(Kind.LORA_ADAPTER, remote(name))
        world.pods.pods[IP] = FakePod()
        world.cluster.put(Kind.POD, ready_pod())
        async with asyncio.timeout(20):
            while True:
                await world.run()
                ready = {name: world.condition("Ready", name=name) for name in names}
                if ready == WANTED and world.condition("Compatible", "v1", "good") == ("True", "Compatible"):
                    break
                await asyncio.sleep(0.01)
        await world.converge()
        assert {name: world.condition("Ready", name=name) for name in names} == WANTED
        assert world.condition("Verified", "v1", "broken") == ("False", "CorruptWeights")
        assert world.condition("Compatible", "v1", "large") == ("False", "BaseMismatch")
        assert {name: entry.digest for name, entry in world.told(IP).items()} == {"good@v1": digest_of(GOOD)}


@pytest.mark.parametrize(
    ("sources", "reason"),
    [
        (FakeSources(), "does not exist"),
        (FakeSources(good=Folder(GOOD | {"adapter_config.json": config_bytes(lora_alpha=32)})), "is wanted"),
    ],
    ids=["the source is away", "the source has other bytes"],
)
async def test_a_store_that_begins_with_an_empty_disk_takes_nothing_away(
    sources: FakeSources, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.operator.adapter_world.BASE", BASE)
    async with running(tmp_path / "first", FakeSources(good=Folder(GOOD))) as store:
        world = AdapterWorld(store=StoreClient(store.session, store.admin_url))
        world.cluster.put(Kind.MODEL_DEPLOYMENT, raw_model())
        world.cluster.put(Kind.LORA_ADAPTER, remote("good"))
        world.pods.pods[IP] = FakePod()
        world.cluster.put(Kind.POD, ready_pod())
        await until(world, lambda: world.condition("Ready", name="good") == ("True", "Ready"))
    async with running(tmp_path / "second", sources) as store:
        world.asks(StoreClient(store.session, store.admin_url))
        await until(world, lambda: reason in world.message("Resolved", "v1", "good"))
        assert set(world.told(IP)) == {"good@v1"}
        assert world.split("good") == {"v1": 1}
        assert world.condition("Ready", name="good") == ("True", "Ready")


async def until(world: AdapterWorld, reached: Callable[[], bool]) -> None:
    """Passes until it is so."""
    async with asyncio.timeout(20):
        await world.run()
        while not reached():
            await asyncio.sleep(0.01)
            await world.run()
