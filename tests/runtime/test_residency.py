"""What is resident follows the last document: loads, retries, drains, unloads, and never two sources under one id.

Classes of residency, and adapters that requests wait for: test_residency_classes.py.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from motet_api.artifact.adapter import Artifact
from motet_api.errors import ErrorCode
from motet_api.identity import AdapterId, Digest
from motet_api.reasons import AdapterReason
from motet_api.wire import DesiredAdapter, DesiredAdapters
from motet_runtime.adapters.entry import PATIENCE
from motet_runtime.adapters.residency import PARALLEL, SLOW_SECONDS, Residency
from motet_runtime.errors import AdapterError, RequestError

LOADED = Digest("sha256:" + "0" * 64)
"""What a source of the fake loader holds, unless something else is demanded."""


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class FakeLoader:
    """Installs at once, unless told to fail; remembers what it was asked."""

    def __init__(self) -> None:
        self.failures: dict[str, AdapterReason] = {}
        self.loaded: list[str] = []
        self.unloaded: list[str] = []
        self.may_unload = asyncio.Event()
        self.may_unload.set()
        self.blocked: dict[str, asyncio.Event] = {}
        self.stores: list[str] = []

    async def load(self, desired: DesiredAdapter, store: str) -> Artifact:
        self.loaded.append(desired.uri)
        self.stores.append(store)
        if desired.uri in self.blocked:
            await self.blocked[desired.uri].wait()
        if desired.uri == "crash":
            raise ZeroDivisionError("as told")
        if desired.uri in self.failures:
            raise AdapterError(self.failures[desired.uri], "as told")
        return Artifact(desired.digest or LOADED, 8, 100, ())

    async def unload(self, adapter: AdapterId) -> None:
        self.unloaded.append(adapter)
        await self.may_unload.wait()


class Scene:
    """A residency that reconciles, its loader and its clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.loader = FakeLoader()
        self.residency = Residency(self.loader, self.clock)

    def want(self, **uris: str) -> None:
        self.want_rows(*(DesiredAdapter(id=AdapterId(name.replace("_", "@")), uri=uri) for name, uri in uris.items()))

    def want_rows(self, *rows: DesiredAdapter, store: str = "") -> None:
        self.residency.set_desired(DesiredAdapters(adapters=list(rows), store=store))

    def reasons(self) -> dict[str, AdapterReason]:
        return {row.id: row.reason for row in self.residency.report()}

    async def until(self, **reasons: AdapterReason) -> None:
        wanted = {name.replace("_", "@"): reason for name, reason in reasons.items()}
        async with asyncio.timeout(5):
            while self.reasons() != wanted:
                await asyncio.sleep(0.001)

    async def until_asked(self, *uris: str) -> None:
        """Until the loader was asked for these, whatever their order."""
        async with asyncio.timeout(5):
            while sorted(self.loader.loaded) != sorted(uris):
                await asyncio.sleep(0.001)


@asynccontextmanager
async def reconciling() -> AsyncIterator[Scene]:
    scene = Scene()
    task = asyncio.create_task(scene.residency.run())
    try:
        yield scene
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


RESIDENT, DRAINING = AdapterReason.RESIDENT, AdapterReason.DRAINING


async def test_desired_adapters_become_resident_and_the_same_document_changes_nothing() -> None:
    async with reconciling() as scene:
        assert not scene.residency.desired_known
        scene.want(a_v1="x", b_v1="y")
        await scene.until(a_v1=RESIDENT, b_v1=RESIDENT)
        scene.want(a_v1="x", b_v1="y")
        await asyncio.sleep(0.01)
        assert scene.loader.loaded == ["x", "y"]
        assert scene.residency.settled()


async def test_an_empty_document_is_a_document() -> None:
    async with reconciling() as scene:
        scene.want()
        assert scene.residency.desired_known
        assert scene.residency.settled()


async def test_a_removed_version_drains_before_it_is_unloaded() -> None:
    async with reconciling() as scene:
        scene.want(a_v1="x")
        await scene.until(a_v1=RESIDENT)
        with scene.residency.use(AdapterId("a@v1")):
            scene.want()
            await scene.until(a_v1=DRAINING)
            with pytest.raises(RequestError) as refused:
                await scene.residency.resolve("a@v1")
            assert refused.value.code is ErrorCode.ADAPTER_NOT_FOUND
            assert scene.loader.unloaded == []
        await scene.until()
        assert scene.loader.unloaded == ["a@v1"]


async def test_a_version_wanted_again_while_it_drains_stays() -> None:
    async with reconciling() as scene:
        scene.want(a_v1="x")
        await scene.until(a_v1=RESIDENT)
        with scene.residency.use(AdapterId("a@v1")):
            scene.want()
            await scene.until(a_v1=DRAINING)
            scene.want(a_v1="x")
            await scene.until(a_v1=RESIDENT)
        assert scene.loader.loaded == ["x"]


async def test_a_version_wanted_again_while_it_is_unloaded_is_not_served_from_what_is_being_freed() -> None:
    async with reconciling() as scene:
        scene.want(a_v1="x")
        await scene.until(a_v1=RESIDENT)
        scene.loader.may_unload.clear()
        scene.want()
        async with asyncio.timeout(5):
            while scene.loader.unloaded == []:
                await asyncio.sleep(0.001)
        scene.want(a_v1="x")
        with pytest.raises(RequestError) as refused:
            await scene.residency.resolve("a@v1")
        assert refused.value.code is ErrorCode.ADAPTER_NOT_READY
        scene.loader.may_unload.set()
        await scene.until(a_v1=RESIDENT)
        assert scene.loader.loaded == ["x", "x"]


async def test_a_version_wanted_again_while_another_is_unloaded_stays() -> None:
    async with reconciling() as scene:
        scene.want(a_v1="x", b_v1="y")
        await scene.until(a_v1=RESIDENT, b_v1=RESIDENT)
        scene.loader.may_unload.clear()
        scene.want()
        async with asyncio.timeout(5):
            while scene.loader.unloaded == []:
                await asyncio.sleep(0.001)
        scene.want(b_v1="y", c_v1="z")
        with scene.residency.use(await scene.residency.resolve("b@v1")):
            scene.loader.may_unload.set()
            await scene.until(b_v1=RESIDENT, c_v1=RESIDENT)
        assert scene.loader.unloaded == ["a@v1"]


async def test_another_source_under_the_same_id_is_loaded_only_after_the_old_one_is_gone() -> None:
    async with reconciling() as scene:
        scene.want(a_v1="x")
        await scene.until(a_v1=RESIDENT)
        with scene.residency.use(AdapterId("a@v1")):
            scene.want(a_v1="y")
            await scene.until(a_v1=DRAINING)
            assert scene.loader.loaded == ["x"]
        await scene.until(a_v1=RESIDENT)
        assert (scene.loader.unloaded, scene.loader.loaded) == (["a@v1"], ["x", "y"])


async def test_a_failure_that_time_heals_is_tried_again_and_keeps_the_pod_unsettled() -> None:
    async with reconciling() as scene:
        scene.loader.failures["x"] = AdapterReason.FETCH_FAILED
        scene.want(a_v1="x", b_v1="y")
        await scene.until(a_v1=AdapterReason.FETCH_FAILED, b_v1=RESIDENT)
        assert not scene.residency.settled()
        scene.loader.failures.clear()
        scene.clock.now += 2.0
        scene.want(a_v1="x", b_v1="y")
        await scene.until(a_v1=RESIDENT, b_v1=RESIDENT)


async def test_a_source_that_stays_away_for_days_is_still_tried_again() -> None:
    async with reconciling() as scene:
        scene.loader.failures["x"] = AdapterReason.SOURCE_NOT_FOUND
        scene.want(a_v1="x")
        async with asyncio.timeout(30):
            while len(scene.loader.loaded) < 1100:
                scene.clock.now += 60.0
                scene.want(a_v1="x")
                await asyncio.sleep(0)
        scene.loader.failures.clear()
        scene.clock.now += 60.0
        scene.want(a_v1="x")
        await scene.until(a_v1=RESIDENT)


async def test_a_new_pod_waits_for_such_a_failure_only_so_long() -> None:
    async with reconciling() as scene:
        scene.loader.failures["x"] = AdapterReason.SOURCE_NOT_FOUND
        scene.want(a_v1="x", b_v1="y")
        await scene.until(a_v1=AdapterReason.SOURCE_NOT_FOUND, b_v1=RESIDENT)
        for attempt in range(2, PATIENCE + 1):
            assert not scene.residency.settled()
            scene.clock.now += 40.0
            scene.want(a_v1="x", b_v1="y")
            async with asyncio.timeout(5):
                while scene.loader.loaded.count("x") < attempt:
                    await asyncio.sleep(0.001)
        await scene.until(a_v1=AdapterReason.SOURCE_NOT_FOUND, b_v1=RESIDENT)
        assert scene.residency.settled()


async def test_a_failure_that_time_does_not_heal_settles_and_others_are_not_held_up() -> None:
    async with reconciling() as scene:
        scene.loader.failures["x"] = AdapterReason.DIGEST_MISMATCH
        scene.want(a_v1="x", b_v1="y")
        await scene.until(a_v1=AdapterReason.DIGEST_MISMATCH, b_v1=RESIDENT)
        assert scene.residency.settled()
        with pytest.raises(RequestError, match="DigestMismatch") as refused:
            await scene.residency.resolve("a@v1")
        assert refused.value.code is ErrorCode.ADAPTER_NOT_READY


async def test_a_fault_nobody_foresaw_is_that_adapters_alone() -> None:
    async with reconciling() as scene:
        scene.want(a_v1="crash", b_v1="y")
        await scene.until(a_v1=AdapterReason.LOAD_FAILED, b_v1=RESIDENT)
        assert not scene.residency.settled(), "it may heal"


async def test_names_resolve_to_one_version_or_to_an_error_that_lists_them() -> None:
    async with reconciling() as scene:
        scene.want(a_v1="x", a_v2="y", b_v1="z")
        await scene.until(a_v1=RESIDENT, a_v2=RESIDENT, b_v1=RESIDENT)
        assert await scene.residency.resolve("b") == "b@v1"
        assert await scene.residency.resolve("a@v2") == "a@v2"
        for name, code, said in (
            ("a", ErrorCode.MODEL_AMBIGUOUS, "a@v1, a@v2"),
            ("a@v3", ErrorCode.VERSION_NOT_FOUND, "a@v1, a@v2"),
            ("c", ErrorCode.ADAPTER_NOT_FOUND, "a@v1, a@v2, b@v1"),
        ):
            with pytest.raises(RequestError, match=said) as refused:
                await scene.residency.resolve(name)
            assert refused.value.code is code


def test_a_report_says_what_the_pod_was_told() -> None:
    wanted = DesiredAdapter(id=AdapterId("a@v1"), uri="a", digest=Digest("sha256:" + "1" * 64))
    residency = Residency(FakeLoader(), Clock())
    residency.set_desired(DesiredAdapters(adapters=[wanted]))
    (row,) = residency.report()
    assert (row.uri, row.desired_digest, row.digest) == ("a", wanted.digest, None)


async def test_a_source_that_takes_its_time_holds_up_no_other() -> None:
    async with reconciling() as scene:
        scene.loader.blocked["slow"] = asyncio.Event()
        scene.want(a_v1="slow", b_v1="x", c_v1="y")
        await scene.until(a_v1=AdapterReason.LOADING, b_v1=RESIDENT, c_v1=RESIDENT)
        scene.loader.blocked["slow"].set()
        await scene.until(a_v1=RESIDENT, b_v1=RESIDENT, c_v1=RESIDENT)


async def test_few_are_loaded_at_a_time_and_those_that_are_slow_do_not_count() -> None:
    async with reconciling() as scene:
        names = [f"s{number}" for number in range(PARALLEL + 1)]
        scene.loader.blocked = {name: asyncio.Event() for name in names}
        scene.want(**{f"{name}_v1": name for name in names})
        await scene.until_asked(*names[:PARALLEL])
        await asyncio.sleep(0.01)
        assert len(scene.loader.loaded) == PARALLEL
        scene.clock.now += SLOW_SECONDS
        scene.want(**{f"{name}_v1": name for name in names})
        await scene.until_asked(*names)


async def test_a_place_that_is_free_again_is_taken() -> None:
    async with reconciling() as scene:
        names = [f"s{number}" for number in range(2 * PARALLEL)]
        scene.loader.blocked = {name: asyncio.Event() for name in names[:PARALLEL]}
        scene.want(**{f"{name}_v1": name for name in names})
        await scene.until_asked(*names[:PARALLEL])
        scene.loader.blocked["s0"].set()
        await scene.until_asked(*names)


async def test_a_source_that_changes_while_it_is_loaded_is_not_loaded_beside_itself() -> None:
    async with reconciling() as scene:
        scene.loader.blocked["x"] = asyncio.Event()
        scene.want(a_v1="x")
        await scene.until_asked("x")
        scene.want(a_v1="y")
        await asyncio.sleep(0.01)
        assert scene.loader.loaded == ["x"]
        scene.loader.blocked["x"].set()
        await scene.until(a_v1=RESIDENT)
        assert (scene.loader.loaded, scene.loader.unloaded) == (["x", "y"], ["a@v1"])


def row(name: str, digest: str | None = None, uri: str = "x") -> DesiredAdapter:
    return DesiredAdapter(id=AdapterId(name), uri=uri, digest=digest and Digest(digest))


async def test_a_digest_that_becomes_known_and_is_what_was_loaded_changes_nothing() -> None:
    async with reconciling() as scene:
        scene.want_rows(row("a@v1"))
        await scene.until(a_v1=RESIDENT)
        with scene.residency.use(AdapterId("a@v1")):
            for digest in (LOADED, None, LOADED):
                scene.want_rows(row("a@v1", digest))
                assert scene.reasons() == {"a@v1": RESIDENT}
                assert scene.residency.report()[0].desired_digest == digest
        await asyncio.sleep(0.01)
        assert (scene.loader.loaded, scene.loader.unloaded) == (["x"], [])


async def test_a_digest_that_becomes_known_while_it_is_loaded_changes_nothing_either() -> None:
    async with reconciling() as scene:
        scene.loader.blocked["x"] = asyncio.Event()
        scene.want_rows(row("a@v1"))
        await scene.until_asked("x")
        scene.want_rows(row("a@v1", LOADED))
        scene.loader.blocked["x"].set()
        await scene.until(a_v1=RESIDENT)
        assert (scene.loader.loaded, scene.loader.unloaded) == (["x"], [])
        assert scene.residency.report()[0].desired_digest == LOADED


async def test_another_digest_than_what_was_loaded_is_another_adapter() -> None:
    async with reconciling() as scene:
        scene.want_rows(row("a@v1"))
        await scene.until(a_v1=RESIDENT)
        scene.want_rows(row("a@v1", "sha256:" + "1" * 64))
        await scene.until_asked("x", "x")
        assert scene.loader.unloaded == ["a@v1"]


async def test_the_loader_is_told_where_the_store_is() -> None:
    async with reconciling() as scene:
        scene.want_rows(row("a@v1", LOADED), store="http://store:8002")
        await scene.until(a_v1=RESIDENT)
        assert scene.loader.stores == ["http://store:8002"]


async def test_a_fault_while_unloading_ends_the_loop() -> None:
    class Broken(FakeLoader):
        async def unload(self, adapter: AdapterId) -> None:
            raise ZeroDivisionError("as told")

    scene = Scene()
    scene.loader = Broken()
    scene.residency = Residency(scene.loader, scene.clock)
    scene.loader.blocked["x"] = asyncio.Event()
    scene.want(a_v1="x")
    running = asyncio.create_task(scene.residency.run())
    await scene.until_asked("x")
    scene.want()
    scene.loader.blocked["x"].set()
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(running, 5)
