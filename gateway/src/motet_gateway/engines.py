"""What engines other than Motet's own speak: vLLM's routes, errors, and how its answers say who answered. Pure.

vLLM names the version that answered in the body (`model`), not in headers, and answers 404 for one that it has not.
"""

import json
from collections.abc import Iterator
from typing import Any, Final

from motet_api.errors import ErrorCode
from motet_api.modeldeployment import EngineType
from motet_gateway.errors import GatewayError, RequestRefusedError
from motet_gateway.resolve import Route
from motet_gateway.upstream_errors import error_message

VLLM_PATHS: Final = ("/v1/completions", "/v1/chat/completions")


def check_path(route: Route, path: str) -> None:
    """Whether the engine of the route's model answers this path.

    Raises:
        RequestRefusedError: it does not.
    """
    if route.model.engine is EngineType.VLLM and path not in VLLM_PATHS:
        raise RequestRefusedError(
            ErrorCode.INVALID_REQUEST,
            f"ModelDeployment {route.model.key} has spec.engine.type {route.model.engine}, which does not answer "
            f"{path}: use {' or '.join(VLLM_PATHS)}",
        )


def answered_model(body: bytes) -> str | None:
    """The `model` of an answer, or of the first event of a stream; None if it is not complete or does not say."""
    for parsed in documents(body):
        model = parsed.get("model")
        if isinstance(model, str):
            return model
    return None


def vllm_error(status: int, body: bytes) -> GatewayError:
    """An error of vLLM in our own terms."""
    text = f"vLLM answered {status}: {error_message(body)}"
    if status >= 500:
        return GatewayError(ErrorCode.GENERATION_FAILED, text)
    return RequestRefusedError(ErrorCode.INVALID_REQUEST, text, status=status)


def documents(body: bytes) -> Iterator[dict[str, Any]]:
    """The JSON objects of an answer: its one, or those of its events. What is cut off or no object is passed over."""
    whole = _object(body)
    if whole is not None:
        yield whole
        return
    for line in body.split(b"\n"):
        if line.startswith(b"data:") and (parsed := _object(line[len(b"data:") :])) is not None:
            yield parsed


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(parsed, list) and len(parsed) == 1:
        # LoRAX answers `/` with a list of one.
        parsed = parsed[0]
    return parsed if isinstance(parsed, dict) else None
