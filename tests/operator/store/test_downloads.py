"""Transfers that break, change, lie about their size or find no room."""

from hashlib import sha256
from pathlib import Path

import pytest

from motet_api.identity import ADAPTER_WEIGHTS_FILE
from motet_api.reasons import AdapterReason
from motet_api.store import ArtifactState
from motet_operator.store import blobs as blobs_module
from motet_operator.store.blobs import Blobs
from motet_operator.store.disk import Disk
from motet_operator.store.sources.contract import Limits, SourceError
from tests.operator.store.material import FakeSources, Folder, adapter, digest_of, safetensors_bytes, tensors_of
from tests.operator.store.running import Clock, request, running

GOOD = adapter()
LARGE = GOOD | {"adapter_model.safetensors": safetensors_bytes(tensors_of(rank=4, width=1 << 16))}
SIZE = len(LARGE[ADAPTER_WEIGHTS_FILE])


async def test_a_broken_connection_is_resumed_where_it_broke_off(tmp_path: Path) -> None:
    folder = Folder(LARGE, break_after=3 << 20)
    async with running(tmp_path, FakeSources(good=folder)) as store:
        report = await store.settled(request())
        assert (report.state, report.digest) == (ArtifactState.VERIFIED, digest_of(LARGE))
    offsets = [offset for name, offset in folder.reads if name == ADAPTER_WEIGHTS_FILE]
    assert offsets == [n * (3 << 20) for n in range(len(offsets))]
    assert len(offsets) == -(-SIZE // (3 << 20))


async def test_a_restart_goes_on_from_the_partial_file(tmp_path: Path) -> None:
    clock = Clock()
    # Nothing more comes after the first three mebibytes, however often it is asked.
    folder = Folder(LARGE, break_after=0)
    whole = LARGE[ADAPTER_WEIGHTS_FILE]
    sources = FakeSources(good=folder)
    async with running(tmp_path, sources, clock=clock) as store:
        folder.break_after = 3 << 20
        await store.ask(request())
        await store.settled(request(), lambda report: report.fetched_bytes >= 3 << 20)
        folder.error = SourceError(AdapterReason.FETCH_FAILED, "gone")
    kept = max(path.stat().st_size for path in (tmp_path / "partial").iterdir())
    assert kept >= 3 << 20
    folder.error, folder.break_after = None, None
    folder.reads.clear()
    clock.now += 3600
    async with running(tmp_path, sources, clock=clock) as store:
        await store.settled(request(), lambda report: report.state is ArtifactState.VERIFIED)
        assert store.store.blobs.path(sha256(whole).hexdigest()).read_bytes() == whole
    assert (ADAPTER_WEIGHTS_FILE, kept) in folder.reads


async def test_after_the_node_went_down_a_partial_file_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for boot, kept in (("one", 1), ("one", 1), ("two", 0)):
        (tmp_path / "boot_id").write_text(boot)
        monkeypatch.setattr(blobs_module, "_BOOT_ID", tmp_path / "boot_id")
        blobs = Blobs(tmp_path / "data", Disk(1 << 20))
        blobs.open()
        if not (tmp_path / "data" / "partial" / "key").exists() and boot == "one":
            (tmp_path / "data" / "partial" / "key").write_bytes(b"half")
        assert len(list((tmp_path / "data" / "partial").iterdir())) == kept


async def test_a_server_that_breaks_off_and_cannot_resume_is_given_up(tmp_path: Path) -> None:
    folder = Folder(LARGE, break_after=1 << 20, resumes=False)
    async with running(tmp_path, FakeSources(good=folder)) as store:
        report = await store.settled(request())
        assert report.failure is not None
        assert report.failure.reason is AdapterReason.FETCH_FAILED
        assert len(folder.reads) < 20


async def test_a_server_that_drips_a_little_with_each_connection_is_given_up(tmp_path: Path) -> None:
    folder = Folder(LARGE, break_after=1000)
    async with running(tmp_path, FakeSources(good=folder)) as store:
        report = await store.settled(request())
        assert report.failure is not None
        assert report.failure.reason is AdapterReason.FETCH_FAILED
        assert len(folder.reads) < 20


async def test_a_file_of_unknown_size(tmp_path: Path) -> None:
    async with running(tmp_path, FakeSources(good=Folder(LARGE, says_size=False))) as store:
        assert (await store.settled(request())).digest == digest_of(LARGE)
        assert store.store.blobs.disk.used == sum(map(len, LARGE.values()))


@pytest.mark.parametrize("says_size", [True, False])
@pytest.mark.parametrize("limits", [Limits(max_file_bytes=1 << 20), Limits(max_total_bytes=1 << 20)])
async def test_what_is_too_large_is_refused_and_leaves_nothing(tmp_path: Path, says_size: bool, limits: Limits) -> None:
    folder = Folder(LARGE, says_size=says_size)
    async with running(tmp_path, FakeSources(good=folder), limits=limits) as store:
        report = await store.settled(request())
        assert report.failure is not None
        assert report.failure.reason is AdapterReason.TOO_LARGE
        assert store.store.blobs.disk.used <= 2 << 20


def sources_lists(sources: FakeSources) -> int:
    return sources.folders["https://host/large"].released


async def test_without_room_it_says_how_many_bytes_are_missing(tmp_path: Path) -> None:
    clock = Clock()
    other = adapter(seed=1)
    folders = FakeSources(good=Folder(GOOD), other=Folder(other), large=Folder(LARGE))
    room = sum(map(len, LARGE.values())) + 100
    async with running(tmp_path, folders, clock=clock, disk_bytes=room, grace_seconds=60) as store:
        await store.settled(request("good"))
        await store.settled(request("other"))
        report = await store.settled(request("large"))
        assert report.failure is not None
        assert report.failure.reason is AdapterReason.STORE_FULL
        # The configuration is one blob for both adapters, and the large one's too.
        assert f"{len(other[ADAPTER_WEIGHTS_FILE]) * 2 - 100} bytes are missing" in report.failure.message
        clock.now += 1000
        await store.put_references(digest_of(GOOD), digest_of(other))
        failed = sources_lists(folders)
        store.store.pulls.retry_due()
        await store.settled(request("large"), lambda _: sources_lists(folders) > failed)
        assert len(store.store.catalogue.artifacts) == 2
        # Once nobody names one of them it makes room, and no more goes than must.
        await store.put_references(digest_of(GOOD))
        clock.now += 1000
        await store.ask(request("large"))
        store.store.pulls.retry_due()
        await store.settled(request("large"), lambda _: digest_of(other) not in store.store.catalogue.artifacts)
        assert digest_of(GOOD) in store.store.catalogue.artifacts
        await store.put_references()
        clock.now += 2000
        await store.ask(request("large"))
        store.store.pulls.retry_due()
        await store.settled(request("large"), lambda report: report.state is ArtifactState.VERIFIED)


async def test_a_file_that_changes_while_it_is_fetched_is_listed_anew(tmp_path: Path) -> None:
    clock = Clock()
    folder = Folder(LARGE, break_after=1 << 20)
    async with running(tmp_path, FakeSources(good=folder), clock=clock) as store:
        await store.ask(request())
        await store.settled(request(), lambda report: report.fetched_bytes >= 1 << 20)
        folder.files, folder.break_after = GOOD, None
        report = await store.settled(request())
        if report.failure is not None:
            assert report.failure.reason is AdapterReason.FETCH_FAILED
            clock.now += 60
            store.store.pulls.retry_due()
            report = await store.settled(request(), lambda report: report.state is ArtifactState.VERIFIED)
        assert report.digest == digest_of(GOOD)
    assert folder.released == folder.lists
