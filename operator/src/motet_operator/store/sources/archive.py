"""Unpacks an archive into a folder: only regular files, only at the top or in one folder, only so many and so large.

Everything is refused as a whole: an archive with one entry that leads out of the folder is hostile, whatever else is in
it. Files that the store does not serve (pickles, pictures) are not written. Memory is constant, and what is written is
bounded by the limits before it is written.
"""

import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

from motet_api.reasons import AdapterReason
from motet_operator.store.sources.contract import Limits, RemoteFile, SourceError
from motet_operator.store.sources.file_names import common_folder, is_plain, too_large, wanted
from motet_operator.store.sources.tar_archive import Reader, broken, entries
from motet_operator.store.sources.zip_archive import zip_entries

MAX_RATIO: Final = 200
"""Unpacked bytes over packed ones. Weights hardly pack; a fresh LoRA, half zeros, comes to about 2."""
_RATIO_FLOOR: Final = 16 << 20
"""Below so many unpacked bytes the ratio does not matter."""
_STEP: Final = 1 << 20
"""Room is asked for in steps of so many bytes."""
_DECOMPRESSOR_BLOCK: Final = 1 << 16


class Packing(StrEnum):
    """The forms of archive that are read."""

    TAR = ".tar"
    TAR_GZIP = ".tar.gz"
    TGZ = ".tgz"
    ZIP = ".zip"


class _Member(Protocol):
    """What both forms give."""

    @property
    def name(self) -> str: ...

    def chunks(self) -> Iterator[bytes]: ...


def packing_of(path: str) -> Packing | None:
    """The form that a path's ending names, if it names one."""
    return next((packing for packing in Packing if path.lower().endswith(packing)), None)


def unpack(
    archive: Path,
    packing: Packing,
    folder: Path,
    limits: Limits,
    hold: Callable[[int], None] = lambda size: None,
    stopped: Callable[[], bool] = lambda: False,
) -> list[RemoteFile]:
    """Write the archive's files into `folder`, which exists and is empty; their identity is their sha256.

    Blocking: call it in a thread. It gives up soon after `stopped` says so.

    Args:
        hold: told how many bytes there will be in `folder`, before they are written; what it raises ends the work.

    Raises:
        SourceError: the archive is broken, hostile or too large. What was written by then is left there.
    """
    budget = _Budget(limits, archive.stat().st_size, hold, stopped)
    files: dict[str, RemoteFile] = {}
    try:
        for member in _members(archive, packing, budget):
            path = _safe(member.name)
            budget.entry()
            if path in files:
                raise broken(f"holds {path[:80]!r} twice")
            files[path] = _write(member, path, folder / f"{len(files)}", budget)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise broken("is truncated, or not packed as its name says") from error
    return _settle(files, folder)


class _Budget:
    """What may still be unpacked."""

    def __init__(self, limits: Limits, packed: int, hold: Callable[[int], None], stopped: Callable[[], bool]) -> None:
        self._hold = hold
        self._held = 0
        self._written = 0
        self._stopped = stopped
        self._limits = limits
        self.file_limit = limits.max_file_bytes
        self._packed = packed
        self._entries = 0
        self._bytes = 0

    def entry(self) -> None:
        self._entries += 1
        if self._entries > self._limits.max_files:
            raise too_large(f"the archive has more than {self._limits.max_files} entries", self._limits.max_files)

    def unpacked(self, count: int) -> None:
        self._bytes += count
        if self._stopped():
            raise SourceError(AdapterReason.FETCH_FAILED, "the archive is not wanted any more")
        if self._bytes > self._limits.max_total_bytes:
            most = self._limits.max_total_bytes
            raise too_large(f"the archive unpacks to more than {most} bytes", most)
        if self._bytes > _RATIO_FLOOR and self._bytes > MAX_RATIO * self._packed:
            message = f"the archive unpacks to more than {MAX_RATIO} times its own size, which no weights do"
            raise SourceError(AdapterReason.TOO_LARGE, message)

    def write(self, count: int) -> None:
        self._written += count
        if self._written > self._held:
            self._held = self._written + _STEP
            self._hold(self._held)


class _Counted:
    """A decompressed stream that counts what comes out of it, headers and skipped files too."""

    def __init__(self, stream: Reader, budget: _Budget) -> None:
        self._stream = stream
        self._budget = budget

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(min(size, _DECOMPRESSOR_BLOCK))
        self._budget.unpacked(len(data))
        return data


def _members(archive: Path, packing: Packing, budget: _Budget) -> Iterator[_Member]:
    if packing is Packing.ZIP:
        yield from zip_entries(archive, budget.unpacked)
        return
    with archive.open("rb") as file, file if packing is Packing.TAR else gzip.GzipFile(fileobj=file) as plain:
        stream = _Counted(plain, budget)
        yield from entries(stream)
        # What follows tar's end mark is padding, or a bomb; and gzip's checksum comes after it.
        while stream.read(_DECOMPRESSOR_BLOCK):
            pass


def _safe(name: str) -> str:
    """The path of an entry, `./` taken off. Raises: SourceError for one that could lead out of the folder."""
    path = name.removeprefix("./")
    parts = path.split("/")
    if not all(is_plain(part) for part in parts) or len(parts) > 8:
        message = f"the archive holds {name[:80]!r}: absolute paths, '..' and control characters are refused"
        raise SourceError(AdapterReason.INVALID_SOURCE, message)
    return path


def _write(member: _Member, path: str, target: Path, budget: _Budget) -> RemoteFile:
    """Write one file, unless the store would not serve it; then only its name is kept."""
    name = path.rpartition("/")[2]
    if not wanted(name):
        return RemoteFile(name, None, "")
    digest, size = hashlib.sha256(), 0
    with target.open("xb") as out:
        for chunk in member.chunks():
            size += len(chunk)
            if size > budget.file_limit:
                raise too_large(f"{name} in the archive has more than {budget.file_limit} bytes", budget.file_limit)
            budget.write(len(chunk))
            digest.update(chunk)
            out.write(chunk)
    return RemoteFile(name, size, f"sha256:{digest.hexdigest()}", digest.hexdigest())


def _settle(files: dict[str, RemoteFile], folder: Path) -> list[RemoteFile]:
    """Give the files at the top, or in the one folder, their names; the others are removed."""
    within = common_folder(files)
    settled = []
    for number, (path, file) in enumerate(files.items()):
        written = folder / f"{number}"
        if path != within + file.name:
            written.unlink(missing_ok=True)
            continue
        if file.sha256 is not None:
            written.rename(folder / file.name)
        settled.append(file)
    return settled
