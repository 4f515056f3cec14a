"""The disk tier: adapters' weights on local disk, converted once, opened in a millisecond.

Invariant: a file under its final name is whole, since it is renamed to it when it is written; and a file that this
process did not write is compared with its checksum before its first use. Many adapters may be converted, opened and
removed at once, from any thread, and by other processes in the same folder.

A folder belongs to one base: what an adapter may change was checked against that base when its file was written.
"""

import errno
import fcntl
import os
import tempfile
import threading
from collections import OrderedDict
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

from motet_api.identity import Digest
from motet_runtime.adapters.artifact import VerifiedAdapter
from motet_runtime.adapters.flat_file import FlatAdapter, code_of, open_flat, write_flat

if TYPE_CHECKING:
    import torch

_SUFFIX: Final = ".flat"
_UNFINISHED: Final = ".part"


class FlatStore:
    """Files of adapters in one dtype, `<folder>/<digest in hexadecimal>-<dtype>.flat`, at most `max_bytes` of them.

    When there are more, those that were opened longest ago go first. A removed file's mappings stay valid; the disk's
    space is free when the last of them is gone. Whatever was left over by a process that crashed is removed here.

    Raises:
        ValueError: weights are not kept in this dtype.
        OSError: the folder cannot be made or read.
    """

    def __init__(self, folder: Path, dtype: "torch.dtype", max_bytes: int | None = None) -> None:
        code_of(dtype)
        self._folder = folder
        self._dtype = dtype
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._checked: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob(f".*{_UNFINISHED}"):
            _remove_if_abandoned(path)
        found = [(path.name, path.stat()) for path in folder.glob(f"*{_SUFFIX}")]
        self._sizes = OrderedDict((name, stat.st_size) for name, stat in sorted(found, key=lambda f: f[1].st_mtime_ns))

    def write(self, adapter: VerifiedAdapter) -> FlatAdapter:
        """Convert a verified adapter, unless its file is there, and open it.

        Others make room for it, longest unused first; it is written even if it is larger than `max_bytes` by itself.

        Raises:
            AdapterError: a weight is not finite in the store's dtype.
            OSError: the disk is full, or the folder cannot be written.
        """
        digest = adapter.artifact.digest
        try:
            return self.open(digest)
        except FileNotFoundError:
            path = self._path(digest)
        handle, unfinished = tempfile.mkstemp(prefix=f".{path.name}-", suffix=_UNFINISHED, dir=self._folder)
        try:
            with FileIO(handle, "w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                write_flat(file, adapter, self._dtype)
                # Opened before it has its name: from then on anybody may remove it.
                opened = open_flat(Path(unfinished), check=False)
                Path(unfinished).replace(path)
        except BaseException:
            Path(unfinished).unlink(missing_ok=True)
            raise
        with self._lock:
            self._note(path)
            self._make_room(path.name)
        return opened

    def open(self, digest: Digest) -> FlatAdapter:
        """Map an adapter's file.

        Raises:
            FileNotFoundError: it is not there (any more), or was damaged and has been removed: `write` it again.
        """
        path = self._path(digest)
        try:
            opened = open_flat(path, check=path.name not in self._checked)
            os.utime(path)
        except FileNotFoundError as error:
            with self._lock:
                self._forget(path.name)
            raise FileNotFoundError(errno.ENOENT, f"{digest} is not on disk", str(path)) from error
        except ValueError as error:
            self.remove(digest)
            raise FileNotFoundError(errno.ENOENT, f"{digest} was damaged and is removed: {error}", str(path)) from error
        with self._lock:
            self._note(path)
        return opened

    def remove(self, digest: Digest) -> None:
        """Delete an adapter's file, if it is there. What has been opened stays usable."""
        with self._lock:
            self._unlink(self._path(digest).name)

    def _path(self, digest: Digest) -> Path:
        return self._folder / f"{digest.removeprefix('sha256:')}-{str(self._dtype).removeprefix('torch.')}{_SUFFIX}"

    def _note(self, path: Path) -> None:
        """The file is good, and was used last of all."""
        try:
            self._sizes[path.name] = path.stat().st_size
        except FileNotFoundError:
            return
        self._sizes.move_to_end(path.name)
        self._checked.add(path.name)

    def _make_room(self, kept: str) -> None:
        if self._max_bytes is None:
            return
        excess = sum(self._sizes.values()) - self._max_bytes
        for name in [name for name in self._sizes if name != kept]:
            if excess <= 0:
                return
            excess -= self._sizes[name]
            self._unlink(name)

    def _unlink(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)
        self._forget(name)

    def _forget(self, name: str) -> None:
        self._sizes.pop(name, None)
        self._checked.discard(name)


def _remove_if_abandoned(path: Path) -> None:
    """Remove a file that nobody is writing: its writer holds a lock on it, and a crash gives the lock up."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except (BlockingIOError, FileNotFoundError):
        return
