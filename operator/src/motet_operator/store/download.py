"""One file from a source to a blob: resumed where it broke off, bounded in size, hashed while it is written."""

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakValueDictionary

from motet_api.reasons import AdapterReason
from motet_operator.store.blobs import Blobs, Partial
from motet_operator.store.errors import StoreError
from motet_operator.store.records import FetchedFile
from motet_operator.store.selection import byte_limit, too_large
from motet_operator.store.sources.contract import (
    Credentials,
    Limits,
    Listing,
    RemoteFile,
    Source,
    SourceChangedError,
    SourceError,
    SourceRef,
)

_WRITE: Final = 1 << 20
"""Bytes are gathered before a thread writes them."""
_GROW: Final = 16 << 20
"""Room that is taken at a time for a file whose size nobody says."""
_BREAKS: Final = 5
"""A transfer may break off, or have to start anew, this often in a row; what is there is kept for the next attempt."""
_PROGRESS: Final = 256 << 10
"""Bytes for which a break is forgiven."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the files of one artifact come from, and with what."""

    source: Source
    ref: SourceRef
    listing: Listing
    credentials: Credentials


class Downloads:
    """Fetches files into `blobs`. `received` is told of every byte that comes."""

    def __init__(self, blobs: Blobs, limits: Limits, received: Callable[[int], None]) -> None:
        self._blobs = blobs
        self._limits = limits
        self._received = received
        # Two jobs may be after the same file (with and without its digest); a partial file has one writer.
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def fetch(
        self, origin: Origin, file: RemoteFile, namespace: str, budget: int, progress: Callable[[int], None]
    ) -> FetchedFile:
        """Fetch one file. `budget` is what the artifact may still have of bytes; `progress` gets the file's so far.

        Raises:
            SourceError: the source does not give it.
            StoreError: it is too large, or there is no room.
        """
        limit = min(self._limits.max_file_bytes, budget, byte_limit(file.name) or self._limits.max_file_bytes)
        if (file.size or 0) > limit:
            raise too_large(file.name, limit)
        key = partial_key(origin, file, namespace)
        async with self._turns.setdefault(key, asyncio.Lock()):
            return await self._fetch(self._blobs.partial(key), origin, file, limit, progress)

    async def _fetch(
        self, partial: Partial, origin: Origin, file: RemoteFile, limit: int, progress: Callable[[int], None]
    ) -> FetchedFile:
        try:
            await asyncio.to_thread(partial.reread)
            if partial.size > (limit if file.size is None else file.size):
                partial.restart()
            await self._fill(partial, origin, file, limit, progress)
            if file.sha256 is not None and partial.sha256 != file.sha256:
                partial.discard()
                message = f"{file.name} has the sha256 {partial.sha256}, its source says {file.sha256}"
                raise StoreError(AdapterReason.DIGEST_MISMATCH, message)
            await asyncio.to_thread(partial.settle)
            size = partial.size
            return FetchedFile(name=file.name, identity=file.identity, sha256=partial.finish(), size=size)
        finally:
            partial.leave()

    async def _fill(
        self, partial: Partial, origin: Origin, file: RemoteFile, limit: int, progress: Callable[[int], None]
    ) -> None:
        """Until the file is whole. A break that came after enough more bytes is forgiven, a new start is not."""
        breaks, starts = 0, 0
        while file.size is None or partial.size < file.size or not partial.size:
            before = partial.size
            try:
                await self._transfer(partial, origin, file, limit, progress)
            except SourceChangedError:
                # What is there cannot be continued. From the start it is another file, and has to be listed anew.
                partial.restart()
                starts += 1
                if not before or starts >= _BREAKS:
                    raise
            except SourceError as error:
                breaks = 0 if partial.size >= before + _PROGRESS else breaks + 1
                if error.reason is not AdapterReason.FETCH_FAILED or breaks >= _BREAKS or error.retry_after:
                    raise
            else:
                break
        if file.size is not None and partial.size != file.size:
            message = f"{file.name} ended after {partial.size} bytes of {file.size}"
            raise SourceError(AdapterReason.FETCH_FAILED, message)

    async def _transfer(
        self, partial: Partial, origin: Origin, file: RemoteFile, limit: int, progress: Callable[[int], None]
    ) -> None:
        partial.hold(file.size if file.size is not None else partial.size + _GROW)
        progress(partial.size)
        gathered = bytearray()
        stream: Any = origin.source.read(origin.ref, origin.listing, file, partial.size, origin.credentials)
        try:
            async with aclosing(stream):
                async for chunk in stream:
                    self._received(len(chunk))
                    _check_size(file, partial.size + len(gathered) + len(chunk), limit)
                    gathered += chunk
                    if len(gathered) >= _WRITE:
                        await self._write(partial, file, gathered)
                        progress(partial.size)
        finally:
            await self._write(partial, file, gathered)
            progress(partial.size)

    async def _write(self, partial: Partial, file: RemoteFile, gathered: bytearray) -> None:
        if file.size is None:
            partial.hold(partial.size + len(gathered) + _GROW)
        data = bytes(gathered)
        gathered.clear()
        await asyncio.to_thread(partial.append, data)


def _check_size(file: RemoteFile, size: int, limit: int) -> None:
    if file.size is not None and size > file.size:
        raise SourceChangedError(f"{file.name} has more than the {file.size} bytes that were listed")
    if size > limit:
        raise too_large(file.name, limit)


def partial_key(origin: Origin, file: RemoteFile, namespace: str) -> str:
    """The name of a partial file: of these bytes, as one namespace sees them (empty without credentials)."""
    parts = (namespace, origin.ref.uri, origin.listing.revision, file.name, file.identity, str(file.size))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
