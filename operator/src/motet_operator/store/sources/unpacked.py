"""Archives on disk: fetched once, unpacked, and read from there until their listing is released.

At most `MOST` are kept; the one that was unused longest goes first. One that is gone by the time of a read is fetched
again, and is the same one or an error.
"""

import asyncio
import hashlib
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from motet_operator.store.sources.archive import Packing, unpack
from motet_operator.store.sources.contract import Limits, Listing, RemoteFile, SourceChangedError
from motet_operator.store.sources.file_names import too_large

MOST: Final = 4
_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Package:
    """One archive that has been unpacked; `sha256` is the archive's own."""

    sha256: str
    files: tuple[RemoteFile, ...]


class Unpacked:
    """The folders of unpacked archives below `scratch`, which belongs to this object alone."""

    def __init__(self, scratch: Path, limits: Limits) -> None:
        self._scratch = scratch
        self._limits = limits
        self._folders: OrderedDict[str, Path] = OrderedDict()

    def clear(self) -> None:
        """Remove what an earlier process left. Blocking."""
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir(parents=True)
        self._folders.clear()

    async def add(self, chunks: AsyncIterator[bytes], packing: Packing) -> Package:
        """Fetch and unpack an archive. Raises: SourceError; nothing is left on disk then."""
        folder = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=self._scratch))
        spool = folder / ".archive"
        kept = False
        try:
            sha256 = await self._fetch(chunks, spool)
            content = folder / "content"
            content.mkdir()
            files = await asyncio.to_thread(unpack, spool, packing, content, self._limits)
            spool.unlink()
            await self._keep(sha256, folder)
            kept = True
            return Package(sha256, tuple(files))
        finally:
            if not kept:
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    def has(self, sha256: str) -> bool:
        """Whether the archive's files are there."""
        return sha256 in self._folders

    async def read(self, sha256: str, file: RemoteFile, offset: int) -> AsyncGenerator[bytes, None]:
        """The bytes of one file of an archive that `has` said to be there. Raises: SourceChangedError."""
        self._folders.move_to_end(sha256)
        try:
            opened = (self._folders[sha256] / "content" / file.name).open("rb")
        except FileNotFoundError as error:
            raise SourceChangedError(f"{file.name} is not in the archive any more") from error
        with opened:
            opened.seek(offset)
            while chunk := await asyncio.to_thread(opened.read, _CHUNK):
                yield chunk

    async def release(self, sha256: str) -> None:
        """Drop an archive's files."""
        folder = self._folders.pop(sha256, None)
        if folder is not None:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _fetch(self, chunks: AsyncIterator[bytes], spool: Path) -> str:
        digest, size = hashlib.sha256(), 0
        with spool.open("xb") as out:
            async for chunk in chunks:
                size += len(chunk)
                if size > self._limits.max_total_bytes:
                    most = self._limits.max_total_bytes
                    raise too_large(f"the archive has more than {most} bytes", most)
                digest.update(chunk)
                await asyncio.to_thread(out.write, chunk)
        return digest.hexdigest()

    async def _keep(self, sha256: str, folder: Path) -> None:
        await self.release(sha256)
        self._folders[sha256] = folder
        while len(self._folders) > MOST:
            await self.release(next(iter(self._folders)))


def archive_of(listing: Listing) -> str:
    """The digest of the archive that a listing was made from."""
    return listing.revision.removeprefix("sha256:")
