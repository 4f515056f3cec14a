"""Listing: everything before the first pass; later only what has vanished unseen."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from motet_operator.errors import UnavailableError
from motet_operator.keys import Kind, ModelKey
from motet_operator.kube.index import Index
from motet_operator.kube.resync import Resync
from tests.operator.factories import KEY, MODEL, NAMESPACE, raw_adapter, raw_child, raw_model

Raw = dict[str, Any]


class Lists:
    """The cluster, as far as lists go."""

    def __init__(self, *objects: tuple[Kind, Raw]) -> None:
        self.objects = list(objects)
        self.fail = False
        self.asked: list[tuple[Kind, bool]] = []

    async def list(self, kind: Kind, metadata_only: bool = False) -> AsyncIterator[Raw]:
        self.asked.append((kind, metadata_only))
        if self.fail:
            raise UnavailableError("timed out")
        for found, raw in self.objects:
            if found is kind:
                yield {"metadata": raw["metadata"]} if metadata_only else raw


class Sleeps:
    """Ends at once for so many times, then never."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.asked: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        self.left -= 1
        if self.left < 0:
            await asyncio.Event().wait()


def resync_of(lists: Lists, rounds: int = 0) -> tuple[Resync, Index, list[ModelKey]]:
    index, woken = Index(), list[ModelKey]()
    return Resync(lists, index, woken.append, Sleeps(rounds), lambda: 0.5), index, woken


ALL = (
    (Kind.MODEL_DEPLOYMENT, raw_model()),
    (Kind.LORA_ADAPTER, raw_adapter()),
    (Kind.POD, raw_child(Kind.POD, name="llama-a")),
)


async def test_everything_is_listed_before_anything_is_woken() -> None:
    lists = Lists(*ALL)
    resync, index, woken = resync_of(lists)
    await resync.prime()
    assert {kind for kind, _ in lists.asked} == set(Kind)
    assert not any(metadata_only for _, metadata_only in lists.asked)
    assert woken == [KEY]
    assert list(index.of_model(KEY, Kind.MODEL_DEPLOYMENT)) == [MODEL]


async def test_nothing_is_woken_while_something_cannot_be_listed() -> None:
    lists = Lists(*ALL)
    lists.fail = True
    resync, _, woken = resync_of(lists)
    with pytest.raises(UnavailableError):
        await resync.prime()
    assert woken == []


async def test_a_sweep_forgets_what_has_vanished() -> None:
    lists = Lists(*ALL)
    resync, index, woken = resync_of(lists)
    await resync.prime()
    woken.clear()
    lists.objects = [entry for entry in lists.objects if entry[0] is not Kind.POD]
    await resync.sweep(Kind.POD)
    await resync.sweep(Kind.LORA_ADAPTER)
    assert index.of_model(KEY, Kind.POD) == {}
    assert woken == [KEY]
    assert lists.asked[-1][1] is True


async def test_a_sweep_adds_nothing() -> None:
    """Watches lose no additions, and a list may be older than what a watch has told since."""
    lists = Lists()
    resync, index, woken = resync_of(lists)
    lists.objects = list(ALL)
    for kind in Kind:
        await resync.sweep(kind)
    assert list(index.models()) == []
    assert woken == []


@asynccontextmanager
async def running(resync: Resync, seconds: float = 60) -> AsyncIterator[None]:
    task = asyncio.create_task(resync.run(seconds))
    await settle()
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def settle() -> None:
    for _ in range(40):
        await asyncio.sleep(0)


async def test_a_round_wakes_every_key_one_by_one_and_then_lists_names() -> None:
    lists = Lists(*ALL, (Kind.MODEL_DEPLOYMENT, raw_model(name="other")))
    index, woken, sleeps = Index(), list[ModelKey](), Sleeps(2)
    resync = Resync(lists, index, woken.append, sleeps, lambda: 1.0)
    await resync.prime()
    woken.clear()
    lists.asked.clear()
    async with running(resync, 600):
        assert sorted(woken) == [KEY, ModelKey(NAMESPACE, "other")]
        assert sleeps.asked[:2] == pytest.approx([330.0, 330.0]), "600 s, a tenth more, in two"
        assert sorted(lists.asked) == sorted((kind, True) for kind in Kind)


async def test_a_watch_that_began_anew_is_swept_at_once_and_its_kind_only() -> None:
    lists = Lists(*ALL)
    resync, index, woken = resync_of(lists)
    await resync.prime()
    woken.clear()
    lists.asked.clear()
    async with running(resync):
        lists.objects = [entry for entry in ALL if entry[0] is not Kind.LORA_ADAPTER]
        resync.relisted(Kind.LORA_ADAPTER)
        await settle()
    assert lists.asked == [(Kind.LORA_ADAPTER, True)]
    assert index.of_model(KEY, Kind.LORA_ADAPTER) == {}
    assert woken == [KEY]


async def test_a_list_that_fails_is_made_again() -> None:
    lists = Lists(*ALL)
    resync, index, _ = resync_of(lists)
    await resync.prime()
    lists.asked.clear()
    async with running(resync):
        lists.fail = True
        resync.relisted(Kind.POD)
        await settle()
        assert list(index.of_model(KEY, Kind.POD)) == ["llama-a"], "a list that failed is not an empty list"
    assert lists.asked == [(Kind.POD, True)]


async def test_a_list_that_failed_is_made_until_it_succeeds() -> None:
    lists = Lists(*ALL)
    index = Index()
    waits = Gates()
    resync = Resync(lists, index, lambda _: None, waits, lambda: 0.5)
    await resync.prime()
    async with running(resync):
        lists.fail = True
        lists.objects = [entry for entry in ALL if entry[0] is not Kind.POD]
        resync.relisted(Kind.POD)
        await settle()
        lists.fail = False
        waits.open(2.0)
        await settle()
        assert index.of_model(KEY, Kind.POD) == {}


class Gates:
    """Sleeps by their length; each lasts until it is opened."""

    def __init__(self) -> None:
        self.waiting: dict[float, asyncio.Event] = {}

    async def __call__(self, seconds: float) -> None:
        await self.waiting.setdefault(seconds, asyncio.Event()).wait()

    def open(self, seconds: float) -> None:
        self.waiting.pop(seconds).set()
