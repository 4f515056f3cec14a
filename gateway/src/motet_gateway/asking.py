"""What both APIs read from a request's headers."""

from starlette.requests import Request

from motet_api.names import MODEL_HEADER, USER_HEADER
from motet_gateway.exchange import exchange_of
from motet_gateway.resolve import Asked


def asked(request: Request, name: str, body_user: object = None) -> Asked:
    """Where a request wants to go.

    Args:
        name: what its body names.
        body_user: the OpenAI field `user`; the header goes before it.
    """
    user = request.headers.get(USER_HEADER) or (body_user if isinstance(body_user, str) else "")
    return Asked(name, request.headers.get(MODEL_HEADER), user or exchange_of(request.scope).request_id)


def passed_headers(request: Request) -> dict[str, str]:
    """The headers that a pod needs. Credentials are not among them: pods have no use for them."""
    names = ("accept", "traceparent", "tracestate")
    passed = {name: value for name in names if (value := request.headers.get(name)) is not None}
    return passed | {"content-type": "application/json"}
