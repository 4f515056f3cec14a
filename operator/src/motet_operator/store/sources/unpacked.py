"""Archives on disk: fetched once, unpacked, and read from there until every listing that was made of them is released.

Invariant: what lies in the scratch folder is held in `room` before it is written, and released once it is gone.
One that is gone by the time of a read is fetched again, and is the same one or an error.
"""

import asyncio
import hashlib
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from motet_operator.store.sources.archive import Packing, unpack
from motet_operator.store.sources.contract import Limits, Listing, RemoteFile, Room, SourceChangedError
from motet_operator.store.sources.file_names import too_large

_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Package:
    """One archive that has been unpacked; `sha256` is the archive's own."""

    sha256: str
    files: tuple[RemoteFile, ...]


class Unpacked:
    """The folders of unpacked archives below `scratch`, which belongs to this object alone."""

    def __init__(self, scratch: Path, limits: Limits, room: Room) -> None:
        self._scratch = scratch
        self._limits = limits
        self._room = room
        self._folders: dict[str, Path] = {}
        self._holders: Counter[str] = Counter()

    def clear(self) -> None:
        """Remove what an earlier process left. Blocking."""
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir(parents=True)
        self._folders.clear()
        self._holders.clear()

    async def add(self, chunks: AsyncIterator[bytes], packing: Packing) -> Package:
        """Fetch and unpack an archive, and hold it until `release`.

        Raises:
            SourceError: it cannot be fetched or unpacked; nothing is left then.
            StoreError: the disk has no room for it; nothing is left then.
        """
        folder = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=self._scratch))
        spool = folder / ".archive"
        try:
            sha256, size = await self._fetch(chunks, spool)
            content = folder / "content"
            content.mkdir()
            files = await self._unpack(spool, size, packing, content)
            spool.unlink()
            self._room.hold(_name(folder), sum(file.size or 0 for file in files))
        except BaseException:
            await self._drop(folder)
            raise
        self._holders[sha256] += 1
        if self._folders.setdefault(sha256, folder) != folder:
            # Somebody else unpacked the same one meanwhile.
            await self._drop(folder)
        return Package(sha256, tuple(files))

    def has(self, sha256: str) -> bool:
        """Whether the archive's files are there."""
        return sha256 in self._folders

    async def read(self, sha256: str, file: RemoteFile, offset: int) -> AsyncGenerator[bytes, None]:
        """The bytes of one file of an archive that `has` said to be there. Raises: SourceChangedError."""
        try:
            opened = (self._folders[sha256] / "content" / file.name).open("rb")
        except FileNotFoundError as error:
            raise SourceChangedError(f"{file.name} is not in the archive any more") from error
        with opened:
            opened.seek(offset)
            while chunk := await asyncio.to_thread(opened.read, _CHUNK):
                yield chunk

    async def release(self, sha256: str) -> None:
        """One holder less; after the last one the files are dropped."""
        self._holders[sha256] -= 1
        if self._holders[sha256] > 0:
            return
        del self._holders[sha256]
        folder = self._folders.pop(sha256, None)
        if folder is not None:
            await self._drop(folder)

    async def _drop(self, folder: Path) -> None:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        self._room.release(_name(folder))

    async def _unpack(self, spool: Path, fetched: int, packing: Packing, content: Path) -> list[RemoteFile]:
        """In a thread, which has ended when this has: else it would go on writing after a cancellation."""
        stopped = threading.Event()
        loop = asyncio.get_running_loop()

        async def hold(size: int) -> None:
            self._room.hold(_name(content.parent), fetched + size)

        def hold_from_thread(size: int) -> None:
            asyncio.run_coroutine_threadsafe(hold(size), loop).result()

        work = asyncio.ensure_future(
            asyncio.to_thread(unpack, spool, packing, content, self._limits, hold_from_thread, stopped.is_set)
        )
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            stopped.set()
            await asyncio.gather(work, return_exceptions=True)
            raise

    async def _fetch(self, chunks: AsyncIterator[bytes], spool: Path) -> tuple[str, int]:
        """The archive's sha256, and its bytes."""
        digest, size = hashlib.sha256(), 0
        with spool.open("xb") as out:
            async for chunk in chunks:
                size += len(chunk)
                if size > self._limits.max_total_bytes:
                    most = self._limits.max_total_bytes
                    raise too_large(f"the archive has more than {most} bytes", most)
                self._room.hold(_name(spool.parent), size)
                digest.update(chunk)
                await asyncio.to_thread(out.write, chunk)
        return digest.hexdigest(), size


def _name(folder: Path) -> str:
    """What a folder's bytes are counted under."""
    return f"scratch/{folder.name}"


def archive_of(listing: Listing) -> str:
    """The digest of the archive that a listing was made from."""
    return listing.revision.removeprefix("sha256:")
