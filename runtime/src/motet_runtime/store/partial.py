"""A file that is still coming: what of it is there, and the sha256 of that."""

import hashlib
import os
from io import FileIO
from pathlib import Path
from typing import Final

_BLOCK: Final = 1 << 20


class PartialFile:
    """Opened where an earlier attempt left it, at most `most` bytes of it. Close it; it stays until it is finished.

    Raises:
        OSError: it cannot be opened, read or written.
    """

    def __init__(self, path: Path, most: int) -> None:
        self._path = path
        self._file = FileIO(path, "a+")
        self._sha256 = hashlib.sha256()
        self.size = 0
        if os.fstat(self._file.fileno()).st_size > most:
            self.restart()
        self._file.seek(0)
        while block := self._file.read(_BLOCK):
            self._sha256.update(block)
            self.size += len(block)

    def append(self, data: bytes) -> None:
        """Add what has come."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._sha256.update(data)
        self.size += len(data)

    def restart(self) -> None:
        """Begin again."""
        self._file.truncate(0)
        self._sha256 = hashlib.sha256()
        self.size = 0

    def finish(self, sha256: str, target: Path) -> bool:
        """Give it its name, on the disk for good, if it is what it should be; begin again if not."""
        if self._sha256.hexdigest() != sha256:
            self.restart()
            return False
        os.fsync(self._file.fileno())
        self._path.rename(target)
        return True

    def close(self) -> None:
        """Leave it."""
        self._file.close()
