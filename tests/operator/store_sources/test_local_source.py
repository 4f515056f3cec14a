"""`file://` and `pvc://`: below their roots, whatever links and paths say."""

import os
from pathlib import Path

import pytest

from motet_api.reasons import AdapterReason
from motet_operator.store.sources.contract import SourceChangedError, SourceError, SourceRef
from motet_operator.store.sources.schemes import Sources, SourceSettings
from tests.operator.store_sources.servers import GOOD, WEIGHTS, content, fetch, settings


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A claim `team` with the adapter `churn`, and the file root `models`; `private` is neither's."""
    for name in ("claims/team/churn", "models/base", "private", "into"):
        (tmp_path / name).mkdir(parents=True)
    for name, data in GOOD.items():
        (tmp_path / "claims/team/churn" / name).write_bytes(data)
        (tmp_path / "private" / name).write_bytes(data)
    (tmp_path / "claims/team/churn/adapter_model.bin").write_bytes(b"\x80\x04.")
    (tmp_path / "models/base/config.json").write_bytes(b"{}")
    return tmp_path


def made(place: Path) -> SourceSettings:
    return settings(place / "scratch", claims=place / "claims", roots=(place / "models",))


async def test_claim(place: Path) -> None:
    async with Sources(made(place)) as sources:
        listing = await fetch(sources, "pvc://team/churn", place / "into")
    assert content(place / "into") == GOOD
    assert listing.passed_over == ("adapter_model.bin",)


async def test_root(place: Path) -> None:
    async with Sources(made(place)) as sources:
        await fetch(sources, f"file://{place}/models/base", place / "into")
    assert content(place / "into") == {"config.json": b"{}"}


async def test_links_of_a_cache_within_the_claim(place: Path) -> None:
    blobs = place / "claims/team/blobs"
    blobs.mkdir()
    for name in GOOD:
        (place / "claims/team/churn" / name).rename(blobs / name)
        (place / "claims/team/churn" / name).symlink_to(f"../blobs/{name}")
    async with Sources(made(place)) as sources:
        await fetch(sources, "pvc://team/churn", place / "into")
    assert content(place / "into") == GOOD


async def test_resumed_read_and_change(place: Path) -> None:
    async with Sources(made(place)) as sources:
        source, ref = sources.open_source("pvc://team/churn"), SourceRef("pvc://team/churn")
        listing = await source.list(ref, {})
        weights = listing.files[1]
        assert b"".join([chunk async for chunk in source.read(ref, listing, weights, 77, {})]) == WEIGHTS[77:]
        (place / "claims/team/churn" / weights.name).write_bytes(WEIGHTS[::-1])
        with pytest.raises(SourceChangedError):
            async for _ in source.read(ref, listing, weights, 77, {}):
                pass
        (place / "claims/team/churn" / weights.name).unlink()
        with pytest.raises(SourceChangedError):
            await anext(source.read(ref, listing, weights, 0, {}))


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("file://{place}/private", AdapterReason.SOURCE_NOT_ALLOWED),
        ("file:///etc", AdapterReason.SOURCE_NOT_ALLOWED),
        ("file:///", AdapterReason.SOURCE_NOT_ALLOWED),
        ("file://{place}/models/../private", AdapterReason.SOURCE_NOT_ALLOWED),
        ("file://{place}/models/%2e%2e/private", AdapterReason.SOURCE_NOT_ALLOWED),
        ("file://{place}/models/none", AdapterReason.SOURCE_NOT_FOUND),
        ("file://{place}/models/base/config.json", AdapterReason.SOURCE_NOT_FOUND),
        ("file://host{place}/models/base", AdapterReason.INVALID_SOURCE),
        ("pvc://team/../private", AdapterReason.SOURCE_NOT_ALLOWED),
        ("pvc://team/%2e%2e/%2e%2e/private", AdapterReason.SOURCE_NOT_ALLOWED),
        ("pvc://team/none", AdapterReason.SOURCE_NOT_FOUND),
        ("pvc://other/churn", AdapterReason.SOURCE_NOT_MOUNTED),
        ("pvc://../churn", AdapterReason.INVALID_SOURCE),
        ("pvc:///churn", AdapterReason.INVALID_SOURCE),
    ],
)
async def test_refused_path(uri: str, reason: AdapterReason, place: Path) -> None:
    async with Sources(made(place)) as sources:
        with pytest.raises(SourceError) as caught:
            await fetch(sources, uri.format(place=place), place / "into")
    assert caught.value.reason is reason, caught.value
    assert content(place / "into") == {}


@pytest.mark.parametrize("linked", ["file", "folder"])
async def test_link_that_leads_out(linked: str, place: Path) -> None:
    churn = place / "claims/team/churn"
    if linked == "file":
        (churn / "adapter_config.json").unlink()
        (churn / "adapter_config.json").symlink_to(place / "private/adapter_config.json")
    else:
        (place / "claims/team/evil").symlink_to(place / "private")
    uri = "pvc://team/churn" if linked == "file" else "pvc://team/evil"
    async with Sources(made(place)) as sources:
        with pytest.raises(SourceError) as caught:
            await fetch(sources, uri, place / "into")
    assert caught.value.reason is AdapterReason.SOURCE_NOT_ALLOWED, caught.value


async def test_link_put_there_after_the_listing(place: Path) -> None:
    async with Sources(made(place)) as sources:
        source, ref = sources.open_source("pvc://team/churn"), SourceRef("pvc://team/churn")
        listing = await source.list(ref, {})
        file = place / "claims/team/churn" / listing.files[0].name
        file.unlink()
        file.symlink_to(place / "private" / file.name)
        with pytest.raises(SourceError) as caught:
            await anext(source.read(ref, listing, listing.files[0], 0, {}))
    assert caught.value.reason is AdapterReason.SOURCE_NOT_ALLOWED


async def test_pipe_is_no_file(place: Path) -> None:
    file = place / "claims/team/churn/adapter_config.json"
    file.unlink()
    os.mkfifo(file)
    async with Sources(made(place)) as sources:
        with pytest.raises(SourceError):
            await fetch(sources, "pvc://team/churn", place / "into")
