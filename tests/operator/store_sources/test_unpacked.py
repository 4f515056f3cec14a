"""Archives on disk: held as long as somebody reads them, and never left behind."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from motet_operator.store.sources.archive import Packing
from motet_operator.store.sources.contract import Limits, SourceError, SourceRef
from motet_operator.store.sources.schemes import Sources
from motet_operator.store.sources.unpacked import Unpacked
from tests.operator.store_sources.hostile_archives import GOOD_TAR, bomb, entry, tar, zipped
from tests.operator.store_sources.hostile_registry import registry
from tests.operator.store_sources.registry import blob_digest, layer, manifest
from tests.operator.store_sources.servers import CONFIG, GOOD, LIMITS, WEIGHTS, bytes_below, served, settings


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 100_000):
        yield data[start : start + 100_000]


def made(scratch: Path, limits: Limits = LIMITS) -> Unpacked:
    unpacked = Unpacked(scratch, limits)
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
