"""Errors as answers: always JSON, in the shape of the API that was called."""

from starlette.responses import Response
from starlette.types import Scope

from motet_api.errors import lorax_error, openai_error, speaks_lorax
from motet_gateway.errors import GatewayError


def error_answer(scope: Scope, error: GatewayError) -> Response:
    """The answer for an error on this path, with `Retry-After` where trying again can help."""
    status, body = error_body(scope["path"], error)
    headers = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
    return Response(body, status_code=error.status or status, media_type="application/json", headers=headers)


def error_body(path: str, error: GatewayError) -> tuple[int, str]:
    """Status and JSON text of an error on this path."""
    if speaks_lorax(path):
        status, lorax = lorax_error(error.code, error.message)
        return status, lorax.model_dump_json()
    status, openai = openai_error(error.code, error.message, error.param)
    return status, openai.model_dump_json()
