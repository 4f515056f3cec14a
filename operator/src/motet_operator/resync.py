"""Listing everything: once before the first pass, and again from time to time against what watches may have missed."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NoReturn, Protocol

from motet_operator.errors import OperatorError
from motet_operator.index import Index
from motet_operator.keys import Kind, ModelKey, RawObject

log = logging.getLogger(__name__)


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
    ) -> None:
        self._cluster = cluster
        self._index = index
        self._wake = wake
        self._sleep = sleep

    async def prime(self) -> None:
        """Take in every object there is, and wake every key. Raises: UnavailableError, RefusedError."""
        for kind in Kind:
            async for raw in self._cluster.list(kind):
                self._index.put(kind, raw)
        self._wake_all()

    async def run(self, seconds: float) -> NoReturn:
        """Drop what has vanished unseen and wake every key, every so often."""
        while True:
            await self._sleep(seconds)
            try:
                await self.sweep()
            except OperatorError as error:
                log.warning("not listed this time: %s", error)

    async def sweep(self) -> None:
        """One round. Raises: UnavailableError, RefusedError."""
        for kind in Kind:
            before = self._index.snapshot(kind)
            listed = [
                (raw["metadata"].get("namespace", ""), raw["metadata"]["name"])
                async for raw in self._cluster.list(kind, metadata_only=True)
            ]
            for key in self._index.forget_vanished(kind, before, listed):
                self._wake(key)
        self._wake_all()

    def _wake_all(self) -> None:
        for key in self._index.models():
            self._wake(key)
