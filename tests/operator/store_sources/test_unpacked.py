"""Archives on disk: held as long as somebody reads them, and never left behind."""

import asyncio
import gzip
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from motet_api.reasons import AdapterReason
from motet_operator.store.disk import Disk
from motet_operator.store.errors import StoreError
from motet_operator.store.sources.archive import Packing
from motet_operator.store.sources.contract import Boundless, Limits, Room, SourceError, SourceRef
from motet_operator.store.sources.schemes import Sources
from motet_operator.store.sources.unpacked import Package, Unpacked
from tests.operator.store_sources.hostile_archives import GOOD_TAR, bomb, entry, tar, zipped
from tests.operator.store_sources.hostile_registry import registry
from tests.operator.store_sources.registry import blob_digest, layer, manifest
from tests.operator.store_sources.servers import CONFIG, GOOD, LIMITS, WEIGHTS, bytes_below, served, settings

BOUNDLESS = Boundless()


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 100_000):
        yield data[start : start + 100_000]


def made(scratch: Path, limits: Limits = LIMITS, room: Room = BOUNDLESS) -> Unpacked:
    unpacked = Unpacked(scratch, limits, room)
    unpacked.clear()
    return unpacked


async def test_kept_until_the_last_holder_is_gone(tmp_path: Path) -> None:
    unpacked = made(tmp_path / "scratch")
    first = await unpacked.add(pieces(GOOD_TAR), Packing.TAR)
    second = await unpacked.add(pieces(GOOD_TAR), Packing.TAR)
    assert first == second
    assert bytes_below(tmp_path / "scratch") == len(CONFIG) + len(WEIGHTS), "on disk once"
    await unpacked.release(first.sha256)
    assert unpacked.has(first.sha256)
    await unpacked.release(first.sha256)
    assert not unpacked.has(first.sha256)
    assert list((tmp_path / "scratch").iterdir()) == []


async def test_what_an_earlier_process_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "scratch/left").mkdir(parents=True)
    (tmp_path / "scratch/left/file").write_bytes(b"x")
    made(tmp_path / "scratch")
    assert list((tmp_path / "scratch").iterdir()) == []


async def test_cancelled_while_it_is_unpacked(tmp_path: Path) -> None:
    roomy = Limits(max_file_bytes=1 << 30, max_total_bytes=1 << 30)
    unpacked = made(tmp_path / "scratch", roomy)
    task = asyncio.create_task(
        unpacked.add(pieces(bomb(1 << 30) + gzip.compress(bytes(range(256)) * 65_536, 0)), Packing.TGZ)
    )
    while not list((tmp_path / "scratch").glob("*/content/*")):
        assert not task.done()
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list((tmp_path / "scratch").iterdir()) == []


async def test_artifact_of_archives_leaves_nothing_when_one_is_refused(tmp_path: Path) -> None:
    kind = "application/vnd.oci.image.layer.v1.tar"
    good, bad, useless = GOOD_TAR, tar(entry("../config.json")), tar(entry("notes.md", b"# hi"))
    held = {blob_digest(data): data for data in (good, bad, useless)}
    scratch = tmp_path / "scratch"
    for layers, refused in (((good, bad), True), ((useless,), True), ((good, useless), False)):
        body = manifest(*(layer("", data, kind) for data in layers))
        async with served(registry(body, held)) as server:
            host = server.url.removeprefix("http://")
            uri = f"oci://{host}/team/adapter:v1"
            async with Sources(settings(scratch, plain_http_registries=frozenset({host}))) as sources:
                source = sources.open_source(uri)
                if refused:
                    with pytest.raises(SourceError):
                        await source.list(SourceRef(uri), {})
                else:
                    listing = await source.list(SourceRef(uri), {})
                    assert [file.name for file in listing.files] == list(GOOD)
                    await source.release(listing)
                assert list(scratch.iterdir()) == []


async def test_archive_without_a_configuration_leaves_nothing(tmp_path: Path) -> None:
    data = zipped(("adapter_model.safetensors", WEIGHTS))
    async with served(registry(b"", {"a.zip": data})) as server, Sources(settings(tmp_path / "scratch")) as sources:
        uri = f"{server.url}/a.zip"
        with pytest.raises(SourceError, match="neither"):
            await sources.open_source(uri).list(SourceRef(uri), {})
        assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize("packing", [Packing.TAR, Packing.TGZ, Packing.ZIP])
async def test_archives_keep_within_the_disk_of_the_store(packing: Packing, tmp_path: Path) -> None:
    scratch, room = tmp_path / "scratch", Disk(6 << 20)
    unpacked = made(scratch, Limits(max_file_bytes=room.limit, max_total_bytes=room.limit), room)

    async def watched() -> AsyncIterator[bytes]:
        async for piece in pieces(archive(packing, os.urandom(1 << 20))):
            yield piece
            assert on_disk(scratch) <= room.used <= room.limit

    kept = await unpacked.add(watched(), packing)
    results = await asyncio.gather(*(unpacked.add(watched(), packing) for _ in range(12)), return_exceptions=True)
    packages = [result for result in results if isinstance(result, Package)]
    refused = [result for result in results if isinstance(result, StoreError)]
    assert len(packages) + len(refused) == 12, results
    assert refused, "they do not all fit"
    assert {error.reason for error in refused} == {AdapterReason.STORE_FULL}
    assert on_disk(scratch) == room.used == sum(file.size or 0 for one in (kept, *packages) for file in one.files)
    for package in (kept, *packages):
        await unpacked.release(package.sha256)
    assert (room.used, on_disk(scratch)) == (0, 0)
    again = await unpacked.add(watched(), packing)
    await unpacked.release(again.sha256)


def on_disk(folder: Path) -> int:
    """Bytes below a folder from which files may go meanwhile."""
    found = 0
    for where, _, names in os.walk(folder):  # which passes over folders that are gone
        for name in names:
            with suppress(FileNotFoundError):
                found += (Path(where) / name).lstat().st_size
    return found


async def test_what_an_archive_unpacks_to_is_held_before_it_is_written(tmp_path: Path) -> None:
    room = Disk(2 << 20)
    unpacked = made(tmp_path / "scratch", Limits(max_file_bytes=1 << 30, max_total_bytes=1 << 30), room)
    packed = gzip.compress(archive(Packing.TAR, bytes(8 << 20)))
    assert len(packed) < 1 << 20
    with pytest.raises(StoreError, match="bytes are missing"):
        await unpacked.add(pieces(packed), Packing.TGZ)
    assert (room.used, bytes_below(tmp_path / "scratch")) == (0, 0)


async def test_the_same_archive_twice_is_counted_once(tmp_path: Path) -> None:
    room = Disk(1 << 30)
    unpacked = made(tmp_path / "scratch", LIMITS, room)
    both = await asyncio.gather(*(unpacked.add(pieces(GOOD_TAR), Packing.TAR) for _ in range(2)))
    assert room.used == len(CONFIG) + len(WEIGHTS)
    for package in both:
        await unpacked.release(package.sha256)
    assert room.used == 0


def archive(packing: Packing, weights: bytes) -> bytes:
    files = {"adapter_config.json": CONFIG, "adapter_model.safetensors": weights}
    if packing is Packing.ZIP:
        return zipped(*files.items())
    plain = tar(*(entry(name, data) for name, data in files.items()))
    return gzip.compress(plain, 1) if packing is Packing.TGZ else plain
