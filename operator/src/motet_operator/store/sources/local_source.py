"""`pvc://CLAIM/path` and `file:///path`: folders that are mounted into the store, below configured roots only.

A link may point anywhere below its root (a hub's cache is made of links); one that leads out of it is refused, also
when it is put there between look and open: what was opened is asked where it is.
"""

import asyncio
import os
import re
import stat
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import unquote, urlsplit

from motet_api.identity import NAME_PATTERN
from motet_api.reasons import AdapterReason
from motet_operator.store.sources.contract import (
    Credentials,
    Limits,
    Listing,
    RemoteFile,
    SourceChangedError,
    SourceError,
    SourceRef,
)
from motet_operator.store.sources.file_names import listing as list_files
from motet_operator.store.sources.file_names import too_large, wanted

_CHUNK: Final = 1 << 20
_MOST_ENTRIES: Final = 10_000


class LocalSource:
    """`claims` is the folder with a folder for each mounted claim; `roots` are those that file:// may name."""

    def __init__(self, claims: Path | None, roots: tuple[Path, ...], limits: Limits) -> None:
        self._claims = claims
        self._roots = roots
        self._limits = limits

    async def list(self, ref: SourceRef, credentials: Credentials) -> Listing:
        """Look into the folder. Raises: SourceError."""
        if ref.revision is not None:
            raise SourceError(AdapterReason.INVALID_SOURCE, "source.revision means nothing for a folder: remove it")
        return await asyncio.to_thread(self._list, ref.uri)

    async def read(
        self, ref: SourceRef, listing: Listing, file: RemoteFile, offset: int, credentials: Credentials
    ) -> AsyncGenerator[bytes, None]:
        """The bytes of one file. Raises: SourceError."""
        root, folder = self._folder(ref.uri)
        with _opened(root, folder / file.name) as opened:
            opened.seek(offset)
            left = (file.size or 0) - offset
            while left > 0:
                chunk = await asyncio.to_thread(opened.read, min(_CHUNK, left))
                if not chunk:
                    break
                left -= len(chunk)
                yield chunk
            # Written to while it was read: then what was read is neither the old file nor the new one.
            if left or _identity(os.fstat(opened.fileno())) != file.identity:
                raise SourceChangedError(f"{file.name} has changed since it was listed")

    async def release(self, listing: Listing) -> None:
        """Nothing is kept."""

    def _list(self, uri: str) -> Listing:
        root, folder = self._folder(uri)
        files = []
        try:
            for number, entry in enumerate(folder.iterdir()):
                if number >= _MOST_ENTRIES:
                    raise too_large(f"{uri} has more than {_MOST_ENTRIES} entries", _MOST_ENTRIES)
                if not wanted(entry.name):
                    files.append(RemoteFile(entry.name, None, ""))
                elif entry.is_file():
                    with _opened(root, entry) as opened:
                        found = os.fstat(opened.fileno())
                    files.append(RemoteFile(entry.name, found.st_size, _identity(found)))
        except FileNotFoundError as error:
            raise SourceError(AdapterReason.SOURCE_NOT_FOUND, f"{uri} does not exist") from error
        except NotADirectoryError as error:
            raise SourceError(AdapterReason.SOURCE_NOT_FOUND, f"{uri} is no folder") from error
        except PermissionError as error:
            raise SourceError(AdapterReason.SOURCE_FORBIDDEN, f"{uri} cannot be read by the store's user") from error
        except OSError as error:
            raise SourceError(AdapterReason.FETCH_FAILED, f"{uri} cannot be read: {error.strerror}") from error
        return list_files(files, self._limits, uri)

    def _folder(self, uri: str) -> tuple[Path, Path]:
        """The root that the folder must be below, and the folder. Raises: SourceError."""
        parts = urlsplit(uri)
        path = unquote(parts.path)
        if "\0" in path or ".." in path.split("/"):
            raise SourceError(AdapterReason.SOURCE_NOT_ALLOWED, f"{uri!r} must not lead upwards")
        if parts.scheme == "pvc":
            return self._claim(parts.netloc), self._claim(parts.netloc) / path.lstrip("/")
        if parts.netloc not in {"", "localhost"}:
            raise SourceError(AdapterReason.INVALID_SOURCE, f"{uri}: write file:///path, with three slashes")
        for root in self._roots:
            if Path(path).is_relative_to(root):
                return root, Path(path)
        roots = ", ".join(map(str, self._roots)) or "none is configured"
        raise SourceError(AdapterReason.SOURCE_NOT_ALLOWED, f"{uri} is not below a folder the store may read ({roots})")

    def _claim(self, name: str) -> Path:
        if not re.fullmatch(NAME_PATTERN, name):
            raise SourceError(AdapterReason.INVALID_SOURCE, f"{name!r} is no name of a claim: write pvc://CLAIM/path")
        if self._claims is None or not (self._claims / name).is_dir():
            message = f"claim {name!r} is not mounted in the store"
            raise SourceError(AdapterReason.SOURCE_NOT_MOUNTED, message)
        return self._claims / name


@contextmanager
def _opened(root: Path, path: Path) -> Iterator[BinaryIO]:
    """The file, opened. Raises: SourceError when it is no regular file below the root."""
    try:
        # A pipe that nobody writes to would never open.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise SourceChangedError(f"{path.name} is not there any more") from error
    except OSError as error:
        raise SourceError(AdapterReason.FETCH_FAILED, f"{path.name} cannot be read: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as opened:
        real = Path(f"/proc/self/fd/{descriptor}").resolve()
        if not real.is_relative_to(root.resolve()):
            raise SourceError(AdapterReason.SOURCE_NOT_ALLOWED, f"{path.name} is a link that leads out of {root.name}")
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SourceError(AdapterReason.INVALID_SOURCE, f"{path.name} is no regular file")
        yield opened


def _identity(found: os.stat_result) -> str:
    return f"inode:{found.st_ino}:{found.st_size}:{found.st_mtime_ns}"
