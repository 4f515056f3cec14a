"""The bytes on disk: `blobs/sha256/aa/<hex>`, whole and verified by name, and `partial/<key>`, on their way.

A blob comes into being by a rename and never changes. Whoever needs one to stay says so (`using`).
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from motet_operator.store.disk import Disk

_CHUNK: Final = 1 << 20
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class BlobStat:
    """A blob's bytes, and when it came (Unix seconds)."""

    size: int
    came_at: float


class Blobs:
    """Blobs and partial files below a folder, their bytes counted by `disk`."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._blobs = folder / "blobs" / "sha256"
        self._partial = folder / "partial"
        self.disk = disk
        self._uses: Counter[str] = Counter()
        self._stats: dict[str, BlobStat] = {}

    def open(self) -> None:
        """Find what is there. Raises: OSError."""
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._partial.mkdir(parents=True, exist_ok=True)
        self._drop_unsettled()
        for path in self._blobs.glob("??/*"):
            self._found(path)
        for path in self._partial.iterdir():
            self.disk.found(f"partial/{path.name}", path.stat().st_size)

    def _drop_unsettled(self) -> None:
        """What was being written when the node went down may have holes: partial files are of one boot only."""
        boot, noted = _BOOT_ID.read_text(), self._partial.parent / "boot"
        if not noted.is_file() or noted.read_text() != boot:
            for path in self._partial.iterdir():
                path.unlink()
            noted.write_text(boot)

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self._stats

    def stats(self) -> dict[str, BlobStat]:
        """Every blob."""
        return dict(self._stats)

    def path(self, sha256: str) -> Path:
        """Where a blob is, or would be."""
        return self._blobs / sha256[:2] / sha256

    @contextmanager
    def using(self, sha256: str) -> Iterator[None]:
        """Keeps a blob, or one that is about to come, from being deleted."""
        self._uses[sha256] += 1
        try:
            yield
        finally:
            self._uses[sha256] -= 1
            if not self._uses[sha256]:
                del self._uses[sha256]

    def in_use(self) -> frozenset[str]:
        """What must stay."""
        return frozenset(self._uses)

    def remove(self, sha256: str) -> None:
        """Delete a blob that nobody needs."""
        assert sha256 not in self._uses
        self.path(sha256).unlink(missing_ok=True)
        self._stats.pop(sha256, None)
        self.disk.release(sha256)

    def partial(self, key: str) -> "Partial":
        """The partial file of this key, continued if it is there. Raises: OSError."""
        return Partial(self, key, self._partial / key)

    def drop_partials(self, before: float) -> None:
        """Delete partial files that nothing has been written to since."""
        for path in self._partial.iterdir():
            if path.stat().st_mtime < before:
                path.unlink(missing_ok=True)
                self.disk.release(f"partial/{path.name}")

    def adopt(self, partial: "Partial", sha256: str) -> None:
        """A partial file is whole: it becomes a blob, unless that is there."""
        if sha256 in self._stats:
            partial.path.unlink(missing_ok=True)
        else:
            target = self.path(sha256)
            target.parent.mkdir(exist_ok=True)
            partial.path.replace(target)
            self._found(target)
        self.disk.release(partial.name)

    def _found(self, path: Path) -> None:
        stat = path.stat()
        self._stats[path.name] = BlobStat(stat.st_size, stat.st_mtime)
        self.disk.found(path.name, stat.st_size)


class Partial:
    """A file on its way. `size` bytes are on disk, and in the digest."""

    def __init__(self, blobs: Blobs, key: str, path: Path) -> None:
        self._blobs = blobs
        self.name = f"partial/{key}"
        self.path = path
        self._file = path.open("a+b")
        self._digest = hashlib.sha256()
        self.size = 0

    def reread(self) -> None:
        """Take up what an earlier attempt left. Blocks. Raises: OSError."""
        self._file.seek(0)
        while chunk := self._file.read(_CHUNK):
            self._digest.update(chunk)
            self.size += len(chunk)

    def hold(self, size: int) -> None:
        """Make room for so many bytes in all. Raises: StoreError."""
        self._blobs.disk.hold(self.name, max(size, self.size))

    def append(self, data: bytes) -> None:
        """Write, and hash. Blocks. Raises: OSError."""
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)

    def restart(self) -> None:
        """Throw away what is there."""
        self._file.truncate(0)
        self._digest = hashlib.sha256()
        self.size = 0

    @property
    def sha256(self) -> str:
        """Of what is there."""
        return self._digest.hexdigest()

    def settle(self) -> None:
        """It is whole: make sure that it is on disk. Blocks. Raises: OSError."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def finish(self) -> str:
        """Turn it into a blob, after `settle`; returns its sha256. Raises: OSError."""
        self._blobs.adopt(self, self.sha256)
        return self.sha256

    def leave(self) -> None:
        """Stop; what is there is taken up another time."""
        if self._file.closed:
            return
        self._file.close()
        if self.size:
            self._blobs.disk.found(self.name, self.size)
        else:
            self.discard()

    def discard(self) -> None:
        """Stop, and keep nothing."""
        self._file.close()
        self.path.unlink(missing_ok=True)
        self._blobs.disk.release(self.name)
