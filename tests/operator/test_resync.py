"""Listing: everything before the first pass; later only what has vanished unseen."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from motet_operator.errors import UnavailableError
from motet_operator.index import Index
from motet_operator.keys import Kind, ModelKey
from motet_operator.resync import Resync
from tests.operator.factories import KEY, MODEL, raw_adapter, raw_child, raw_model

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

    async def __call__(self, seconds: float) -> None:
        self.left -= 1
        if self.left < 0:
            await asyncio.Event().wait()


def resync_of(lists: Lists, rounds: int = 0) -> tuple[Resync, Index, list[ModelKey]]:
    index, woken = Index(), list[ModelKey]()
    return Resync(lists, index, woken.append, Sleeps(rounds)), index, woken


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


async def test_a_sweep_forgets_what_has_vanished_and_wakes_all() -> None:
    lists = Lists(*ALL)
    resync, index, woken = resync_of(lists)
    await resync.prime()
    woken.clear()
    lists.objects = [entry for entry in lists.objects if entry[0] is not Kind.POD]
    await resync.sweep()
    assert index.of_model(KEY, Kind.POD) == {}
    assert set(woken) == {KEY}
    assert lists.asked[-1][1] is True


async def test_a_sweep_adds_nothing() -> None:
    """Watches lose no additions, and a list may be older than what a watch has told since."""
    lists = Lists()
    resync, index, woken = resync_of(lists)
    lists.objects = list(ALL)
    await resync.sweep()
    assert list(index.models()) == []
    assert woken == []


async def test_a_round_that_fails_is_followed_by_another() -> None:
    lists = Lists(*ALL)
    resync, index, _ = resync_of(lists, rounds=3)
    await resync.prime()
    lists.fail = True
    running = asyncio.create_task(resync.run(60))
    for _ in range(20):
        await asyncio.sleep(0)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert len(lists.asked) == len(Kind) + 3
    assert list(index.of_model(KEY, Kind.POD)) == ["llama-a"], "a list that failed is not an empty list"
