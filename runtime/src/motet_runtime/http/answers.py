"""JSON answers and errors. Every answer of this server is JSON, in the shape of its route's API, errors included."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, BeforeValidator, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from motet_api.errors import ErrorCode, lorax_error, openai_error, speaks_lorax
from motet_runtime.errors import RequestError

MAX_BODY_BYTES: Final = 16 << 20
RETRY_AFTER_SECONDS: Final = "2"
CLIENT_LEFT_STATUS: Final = 499
"""Not a status of HTTP's: what servers count when the client closes the connection before the answer."""
Body = TypeVar("Body", bound=BaseModel)


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


Strings = Annotated[list[str], BeforeValidator(_listed)]
"""One string or several: not a union, whose errors name types in place of the field."""


class Json(JSONResponse):
    """JSON as UTF-8, not escaped: a client that reads lines has a limit on their length."""

    def render(self, content: Any) -> bytes:
        """The body."""
        return to_json(content).encode()


def to_json(content: Any) -> str:
    """Compact JSON. NaN is refused: no client parses it."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def error_body(path: str, error: RequestError) -> tuple[int, dict[str, Any]]:
    """Status and body of an error, in the shape of the path's API."""
    if speaks_lorax(path):
        status, lorax = lorax_error(error.code, error.message)
        return status, lorax.model_dump(mode="json")
    status, openai = openai_error(error.code, error.message, error.param)
    return status, openai.model_dump(mode="json")


def error_answer(path: str, error: RequestError, status: int | None = None) -> Response:
    """An error as an answer; 429 and 503 say when to try again."""
    own, body = error_body(path, error)
    headers: Mapping[str, str] = {"Retry-After": RETRY_AFTER_SECONDS} if own in (429, 503) else {}
    return Json(body, status_code=status or own, headers=headers)


async def on_request_error(request: Request, error: Exception) -> Response:
    """Starlette's handler for our own errors."""
    assert isinstance(error, RequestError)
    return error_answer(request.url.path, error)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's handler for no such route (404), wrong method (405) and a body too large (413)."""
    assert isinstance(error, HTTPException)
    codes = {404: ErrorCode.NOT_FOUND, 405: ErrorCode.METHOD_NOT_ALLOWED}
    message = f"{request.method} {request.url.path}: {error.detail}"
    code = codes.get(error.status_code, ErrorCode.INVALID_REQUEST)
    answer = error_answer(request.url.path, RequestError(code, message), error.status_code)
    answer.headers.update(error.headers or {})
    return answer


async def on_client_left(_: Request, __: Exception) -> Response:
    """Starlette's handler for a client that is gone: nobody reads this, but it is what is counted."""
    return Response(status_code=CLIENT_LEFT_STATUS)


async def on_crash(request: Request, error: Exception) -> Response:
    """Starlette's handler for a fault of ours; the traceback is in the log."""
    return error_answer(request.url.path, RequestError(ErrorCode.INTERNAL, f"{type(error).__name__}: see the log"))


async def parse_body(request: Request, kind: type[Body]) -> Body:
    """Read and validate a JSON body.

    Raises:
        RequestError: not JSON, or a field is wrong; the message names it.
        HTTPException: too large.
    """
    size = 0
    chunks: list[bytes] = []
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise HTTPException(413, f"the body is larger than {MAX_BODY_BYTES} bytes: send a shorter one")
        chunks.append(chunk)
    try:
        return kind.model_validate_json(b"".join(chunks))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        message = f"{where}: {first['msg']}" if where else str(first["msg"])
        raise RequestError(ErrorCode.INVALID_REQUEST, f"Input validation error: {message}", where or None) from error
