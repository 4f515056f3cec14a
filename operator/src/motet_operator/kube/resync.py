"""Listing everything: once before the first pass, and again from time to time against what watches may have missed."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, NoReturn, Protocol

from motet_operator.errors import OperatorError
from motet_operator.keys import Kind, ModelKey, RawObject
from motet_operator.kube.index import Index

log = logging.getLogger(__name__)

JITTER: Final = 0.1
_AGAIN_SECONDS: Final = 2.0


class Lister(Protocol):
    """Lists objects."""

    def list(self, kind: Kind, metadata_only: bool = False) -> AsyncIterator[RawObject]:
        """All objects of a kind that are ours to see. Raises: UnavailableError, RefusedError."""
        ...


class Resync:
    """Keeps the index complete. No pass may begin before `prime` is through: what is not listed yet is not absent."""

    def __init__(
        self,
        cluster: Lister,
        index: Index,
        wake: Callable[[ModelKey], None],
        sleep: Callable[[float], Awaitable[None]],
        random: Callable[[], float],
        kinds: Sequence[Kind] = tuple(Kind),
    ) -> None:
        """`random` gives numbers from 0 to 1."""
        self._kinds = kinds
        self._cluster = cluster
        self._index = index
        self._wake = wake
        self._sleep = sleep
        self._random = random
        self._relisted: set[Kind] = set()
        self._wanted = asyncio.Event()

    async def prime(self) -> None:
        """Take in every object there is, and wake every key. Raises: UnavailableError, RefusedError."""
        for kind in self._kinds:
            async for raw in self._cluster.list(kind):
                self._index.put(kind, raw)
        self.wake_all()

    def wake_all(self) -> None:
        """Wake every key now."""
        for key in self._index.models():
            self._wake(key)

    async def run(self, seconds: float) -> None:
        """Drop what has vanished unseen and wake every key, about every so often; and sweep what `relisted` names."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._run_often(seconds))
            group.create_task(self._run_relisted())

    def relisted(self, kind: Kind) -> None:
        """A watch lost its place and began anew: what was deleted meanwhile it will never say. Sweep soon."""
        self._relisted.add(kind)
        self._wanted.set()

    async def _run_often(self, seconds: float) -> NoReturn:
        """The period is spread, so that replicas that began together do not list together; and so are the wakes, so
        that ten thousand objects are a trickle and no burst."""
        while True:
            await self._trickle(seconds * (1 + JITTER * (2 * self._random() - 1)))
            for kind in self._kinds:
                self.relisted(kind)

    async def _run_relisted(self) -> NoReturn:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while self._relisted:
                kind = self._relisted.pop()
                try:
                    await self.sweep(kind)
                except OperatorError as error:
                    log.warning("%s not listed this time: %s", kind, error)
                    self._relisted.add(kind)
                    await self._sleep(_AGAIN_SECONDS)

    async def _trickle(self, period: float) -> None:
        """Wake every key that there is at the beginning, one after the other, until the period is over."""
        keys = list(self._index.models())
        for key in keys:
            await self._sleep(period / len(keys))
            self._wake(key)
        if not keys:
            await self._sleep(period)

    async def sweep(self, kind: Kind) -> None:
        """List the names of a kind and drop what is not among them; wakes only keys that lost something.

        The list is a consistent read and never "any version will do": a cache that is behind would not have what a
        watch has shown already, and a living object would be dropped. Raises: UnavailableError, RefusedError.
        """
        before = self._index.snapshot(kind)
        listed = [
            (raw["metadata"].get("namespace", ""), raw["metadata"]["name"])
            async for raw in self._cluster.list(kind, metadata_only=True)
        ]
        for key in self._index.forget_vanished(kind, before, listed):
            self._wake(key)
