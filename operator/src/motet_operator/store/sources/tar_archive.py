"""Reads a tar as a stream of regular files, in constant memory.

The standard library's reader keeps every member it has seen and reads extended headers of any size whole; this one
holds one 512-byte header at a time, parsed by `tarfile.TarInfo`, and refuses what is neither a regular file nor a
folder.
"""

import tarfile
from collections.abc import Iterator
from typing import Final, Protocol

from motet_api.reasons import AdapterReason
from motet_operator.store.sources.contract import SourceError

_BLOCK: Final = tarfile.BLOCKSIZE
_MAX_EXTENDED_BYTES: Final = 64 << 10
_MAX_HEADERS: Final = 1 << 16
_CHUNK: Final = 1 << 18
_REGULAR: Final = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE})
_KINDS: Final = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


class Reader(Protocol):
    """Something to read from."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""
        ...


class Entry:
    """One regular file: read `chunks` to the end, or not at all; the rest is then skipped."""

    def __init__(self, name: str, size: int, stream: Reader) -> None:
        self.name = name
        self.size = size
        self.left = size
        self._stream = stream

    def chunks(self) -> Iterator[bytes]:
        """The bytes. Raises: SourceError when the archive ends before them."""
        while self.left:
            chunk = self._stream.read(min(self.left, _CHUNK))
            if not chunk:
                raise broken("ends in the middle of a file")
            self.left -= len(chunk)
            yield chunk


def broken(how: str) -> SourceError:
    """The error for an archive that cannot be used."""
    return SourceError(AdapterReason.INVALID_SOURCE, f"the archive {how}")


def entries(stream: Reader) -> Iterator[Entry]:
    """The regular files of a tar. Raises: SourceError for anything that is neither file nor folder, or broken."""
    name: str | None = None
    size: int | None = None
    headers = 0
    while (info := _header(stream)) is not None:
        headers += 1
        if headers > _MAX_HEADERS:
            raise SourceError(AdapterReason.TOO_LARGE, f"the archive has more than {_MAX_HEADERS} entries")
        if info.type == tarfile.XHDTYPE:
            fields = _pax(_extended(stream, info))
            name, size = fields.get("path", name), _size(fields.get("size"), size)
            if any(key.startswith("GNU.sparse") for key in fields):
                raise broken(f"holds a sparse file ({info.name[:80]!r})")
        elif info.type == tarfile.GNUTYPE_LONGNAME:
            name = _extended(stream, info).rstrip(b"\0").decode("utf-8", "replace")
        elif info.type in {tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK}:
            _extended(stream, info)
        elif info.type in _REGULAR and not info.name.endswith("/"):
            entry = Entry(name or info.name, info.size if size is None else size, stream)
            padding = -entry.size % _BLOCK
            yield entry
            _skip(stream, entry.left + padding)
            name, size = None, None
        elif info.type == tarfile.DIRTYPE or info.name.endswith("/"):
            name, size = None, None
        else:
            kind = _KINDS.get(info.type, "something that is no file")
            raise broken(f"holds {kind} ({(name or info.name)[:80]!r}); it may hold files only")


def _header(stream: Reader) -> tarfile.TarInfo | None:
    """The next header; None at the end mark, or where the stream ends between two entries."""
    block = _exactly(stream, _BLOCK)
    if block is None or not any(block):
        return None
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError) as error:
        raise broken("has a header that is none of tar's, or is no tar") from error
    if info.size < 0:
        raise broken("has a header with a negative size")
    return info


def _extended(stream: Reader, info: tarfile.TarInfo) -> bytes:
    if info.size > _MAX_EXTENDED_BYTES:
        raise SourceError(AdapterReason.TOO_LARGE, f"the archive has an extended header of {info.size} bytes")
    body = _exactly(stream, info.size + -info.size % _BLOCK)
    if body is None and info.size:
        raise broken("ends in the middle of a header")
    return (body or b"")[: info.size]


def _pax(body: bytes) -> dict[str, str]:
    """The records `LENGTH KEY=VALUE\\n` of an extended header."""
    fields = {}
    while body:
        digits, _, _ = body.partition(b" ")
        if not digits.isdigit() or not len(digits) + 1 < int(digits[:8]) <= len(body):
            raise broken("has an extended header that is none")
        record, body = body[len(digits) + 1 : int(digits)], body[int(digits) :]
        key, _, value = record.rstrip(b"\n").partition(b"=")
        fields[key.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
    return fields


def _size(text: str | None, otherwise: int | None) -> int | None:
    if text is None:
        return otherwise
    if not text.isdecimal() or len(text) > 18:
        raise broken("has an extended header with a size that is none")
    return int(text)


def _exactly(stream: Reader, size: int) -> bytes | None:
    """`size` bytes, or None where the stream is at its end. Raises: SourceError where it ends in between."""
    parts: list[bytes] = []
    left = size
    while left:
        part = stream.read(left)
        if not part:
            if left == size:
                return None
            raise broken("ends in the middle of a header")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _skip(stream: Reader, count: int) -> None:
    while count:
        part = stream.read(min(count, _CHUNK))
        if not part:
            raise broken("ends in the middle of a file")
        count -= len(part)
