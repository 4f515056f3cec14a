"""What a namespace's quota lets nobody have is not fetched: its source is asked how large it is, and that is all."""

import asyncio
from pathlib import Path

from motet_api.reasons import AdapterReason
from motet_api.store import ArtifactReport, ArtifactState
from motet_operator.store.sources.contract import SourceError
from tests.operator.store.material import FakeSources, Folder, adapter
from tests.operator.store.running import SETTLED, Clock, request, running

GOOD = adapter()
SIZE = sum(map(len, GOOD.values()))


def ended(report: ArtifactReport) -> bool:
    return report.state in {*SETTLED, ArtifactState.LISTED}


async def test_listed_until_it_may_have_its_bytes(tmp_path: Path) -> None:
    folder = Folder(GOOD | {"adapter.sig": b"c2ln"})
    async with running(tmp_path, FakeSources(good=folder)) as store:
        for bound in (0, SIZE - 1):
            report = await store.settled(request(max_bytes=bound), ended)
            assert (report.state, report.size_bytes, report.failure) == (ArtifactState.LISTED, SIZE, None)
        assert (folder.reads, folder.lists, store.store.blobs.disk.used) == ([], 1, 0)
        verified = await store.settled(request(max_bytes=SIZE), ended)
        assert (verified.state, verified.size_bytes) == (ArtifactState.VERIFIED, SIZE)


async def test_what_another_namespace_may_have_is_fetched_for_it_alone(tmp_path: Path) -> None:
    gate = asyncio.Event()
    folder = Folder(GOOD, gate=gate)
    async with running(tmp_path, FakeSources(good=folder)) as store:
        await store.ask(request(namespace="bounded", max_bytes=0))
        await store.ask(request(namespace="free"))
        gate.set()
        assert (await store.settled(request(namespace="free"), ended)).state is ArtifactState.VERIFIED
        assert folder.lists == 1, "the job that was to list fetches, for who came meanwhile"
        bounded = (await store.ask(request(namespace="bounded", max_bytes=0))).artifacts[0]
        assert (bounded.state, bounded.size_bytes, bounded.digest) == (ArtifactState.LISTED, SIZE, None)


async def test_a_source_that_does_not_say_sizes(tmp_path: Path) -> None:
    folder = Folder(GOOD, says_size=False)
    async with running(tmp_path, FakeSources(good=folder)) as store:
        refused = await store.settled(request(namespace="bounded", max_bytes=1 << 30), ended)
        assert refused.failure is not None
        assert refused.failure.reason is AdapterReason.TOO_LARGE
        assert "Content-Length" in refused.failure.message
        assert folder.reads == []
        assert (await store.settled(request(namespace="free"), ended)).state is ArtifactState.VERIFIED


async def test_a_source_that_has_grown_is_listed_anew(tmp_path: Path) -> None:
    clock = Clock()
    folder = Folder(GOOD)
    async with running(tmp_path, FakeSources(good=folder), clock=clock, fresh_seconds=600) as store:
        assert (await store.settled(request(max_bytes=0), ended)).size_bytes == SIZE
        folder.files = GOOD | {"adapter_config.json": GOOD["adapter_config.json"] + b" " * 100}
        grown = await store.settled(request(max_bytes=SIZE), ended)
        assert (grown.state, grown.size_bytes, folder.reads) == (ArtifactState.LISTED, SIZE + 100, [])
        folder.files = GOOD
        assert (await store.settled(request(max_bytes=SIZE), ended)).state is ArtifactState.LISTED
        clock.now += 601
        assert (await store.settled(request(max_bytes=SIZE), ended)).state is ArtifactState.VERIFIED


async def test_a_retry_fetches_no_more_than_those_who_ask_may_have(tmp_path: Path) -> None:
    clock = Clock()
    folder = Folder(GOOD, error=SourceError(AdapterReason.FETCH_FAILED, "away"))
    async with running(tmp_path, FakeSources(good=folder), clock=clock) as store:
        assert (await store.settled(request(max_bytes=5), ended)).state is ArtifactState.FAILED
        folder.error = None
        clock.now += 3600
        await store.ask(request(max_bytes=5))
        store.store.pulls.retry_due()
        assert (
            await store.settled(request(max_bytes=5), lambda report: report.state is ArtifactState.LISTED)
        ).size_bytes
        assert folder.reads == []
