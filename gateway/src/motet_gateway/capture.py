"""Keeps of an answer that passes by what is looked at afterwards: its end, and if wanted the whole."""

from typing import Final

from motet_api.errors import ErrorCode
from motet_gateway.upstream_errors import error_code

_TAIL_BYTES: Final = 4096
FAULTS: Final = frozenset({ErrorCode.GENERATION_FAILED, ErrorCode.UPSTREAM_FAILED, ErrorCode.INTERNAL})
"""Errors for which the version or its engine is to blame, not the caller, and not a lack of capacity."""


class Capture:
    """Takes an answer in piece by piece. `limit` is the most that is kept of it as a whole."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = bytearray()
        self._tail = b""
        self._size = 0

    def take(self, piece: bytes) -> None:
        """The next piece."""
        self._size += len(piece)
        if self._size <= self._limit:
            self._kept += piece
        else:
            self._kept.clear()
        self._tail = (self._tail + piece[-_TAIL_BYTES:])[-_TAIL_BYTES:]

    @property
    def whole(self) -> bytes | None:
        """The answer; None if it is longer than the limit."""
        return bytes(self._kept) if self._size <= self._limit else None

    @property
    def failed_in_a_stream(self) -> bool:
        """Whether one of the last events says that the engine failed: the status had been sent before it did."""
        events = self._tail.split(b"\ndata:")[1:] or [self._tail.removeprefix(b"data:")]
        return any(error_code(event) in FAULTS for event in events)


def is_fault(status: int, code: ErrorCode | None) -> bool:
    """Whether an error answer is the version's or its engine's doing."""
    return code in FAULTS if code is not None else status >= 500
