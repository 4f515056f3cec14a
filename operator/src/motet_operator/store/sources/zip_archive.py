"""Reads a zip's regular files, with a bound on its directory: `zipfile` reads that whole, whatever its size."""

import io
import stat
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple
from zlib import error as ZlibError  # noqa: N812 - it is an exception

from motet_api.reasons import AdapterReason
from motet_operator.store.sources.contract import SourceError
from motet_operator.store.sources.tar_archive import broken

_MAX_READ: Final = 1 << 20
"""Largest single read that is served: a directory of about ten thousand entries; contents come in smaller pieces."""
_CHUNK: Final = 1 << 18
_ENCRYPTED: Final = 0x1
_METHODS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})


class _Bounded(io.FileIO):
    """A file that refuses to be read whole."""

    def read(self, size: int | None = -1, /) -> bytes:
        """At most `size` bytes. Raises: SourceError when that would be more than a piece."""
        data = super().read(_MAX_READ + 1 if size is None or size < 0 else min(size, _MAX_READ + 1))
        if len(data) > _MAX_READ:
            raise SourceError(AdapterReason.TOO_LARGE, "the archive's directory is too large: it has too many entries")
        return data


class ZipEntry(NamedTuple):
    """One regular file of a zip. What the directory says of its size may be a lie, so `unpacked` counts what comes."""

    name: str
    archive: zipfile.ZipFile
    info: zipfile.ZipInfo
    unpacked: Callable[[int], None]

    def chunks(self) -> Iterator[bytes]:
        """The bytes. Raises: SourceError when they cannot be unpacked, or their checksum is wrong."""
        try:
            with self.archive.open(self.info) as stream:
                while chunk := stream.read(_CHUNK):
                    self.unpacked(len(chunk))
                    yield chunk
        except (zipfile.BadZipFile, EOFError, ZlibError, NotImplementedError, OSError) as error:
            raise broken(f"cannot be unpacked at {self.name[:80]!r}") from error


def zip_entries(path: Path, unpacked: Callable[[int], None]) -> Iterator[ZipEntry]:
    """The regular files. Raises: SourceError for links, encryption, other methods than deflate, and what is no zip."""
    with _Bounded(path) as file:
        try:
            archive = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise broken("is no zip, or is truncated") from error
        for info in archive.infolist():
            if info.is_dir():
                continue
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in {0, stat.S_IFREG}:
                raise broken(f"holds a link or device ({info.filename[:80]!r}); it may hold files only")
            if info.flag_bits & _ENCRYPTED or info.compress_type not in _METHODS:
                raise broken(f"holds {info.filename[:80]!r} encrypted, or packed by another method than deflate")
            yield ZipEntry(info.filename, archive, info, unpacked)
