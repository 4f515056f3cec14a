"""Request bodies: read within a limit, parsed once, written anew with the name that pods know.

Writing the body anew, rather than passing the bytes on, is what makes it certain that the pod sees the name that was
resolved: with a key given twice, two parsers may differ in which one they take.
"""

import json
from typing import Any, Final

from starlette.types import Receive

from motet_api.errors import ErrorCode
from motet_gateway.errors import RequestRefusedError, UnavailableError

BUSY_RETRY_SECONDS: Final = 2


class BodyBudget:
    """Bounds the bytes of one body, and of all bodies held at once (requests that wait hold theirs)."""

    def __init__(self, max_body_bytes: int, max_held_bytes: int) -> None:
        self._max_body = max_body_bytes
        self._max_held = max_held_bytes
        self.held = 0

    async def read(self, receive: Receive) -> bytes | None:
        """The whole body, counted as held until `free`; None if the client left before it was complete.

        Raises:
            RequestRefusedError: the body is over the limit (413).
            UnavailableError: other requests hold all the memory there is for bodies.
        """
        chunks: list[bytes] = []
        size = 0
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    self.held -= size
                    return None
                chunk = message.get("body", b"")
                size += len(chunk)
                self.held += len(chunk)
                self._check(size)
                chunks.append(chunk)
                if not message.get("more_body", False):
                    return b"".join(chunks)
        except BaseException:
            self.held -= size
            raise

    def free(self, size: int) -> None:
        """A request with a body of this size is answered."""
        self.held -= size

    def _check(self, size: int) -> None:
        if size > self._max_body:
            raise RequestRefusedError(
                ErrorCode.INVALID_REQUEST, f"the body is over the limit of {self._max_body} bytes", status=413
            )
        if self.held > self._max_held:
            raise UnavailableError(
                ErrorCode.OVERLOADED,
                f"requests that wait hold {self._max_held} bytes of bodies already",
                BUSY_RETRY_SECONDS,
            )


def parse_body(body: bytes) -> dict[str, Any]:
    """The JSON object in a body.

    Raises:
        RequestRefusedError: it is not a JSON object.
    """
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestRefusedError(ErrorCode.INVALID_REQUEST, f"the body is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise RequestRefusedError(ErrorCode.INVALID_REQUEST, "the body must be a JSON object")
    return parsed


def render_body(body: dict[str, Any]) -> bytes:
    """The bytes for the pod.

    Raises:
        RequestRefusedError: the body holds what JSON in UTF-8 cannot say (NaN, half a surrogate pair).
    """
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, RecursionError) as error:
        raise RequestRefusedError(ErrorCode.INVALID_REQUEST, f"the body is not valid JSON: {error}") from error


def text_field(body: dict[str, Any], name: str) -> str:
    """A field that is text, or absent or null, which count as empty.

    Raises:
        RequestRefusedError: it is something else.
    """
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RequestRefusedError(ErrorCode.INVALID_REQUEST, f"`{name}` must be a string", param=name)
    return value
