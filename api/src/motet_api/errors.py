"""Machine-readable error codes of every HTTP answer, and the two shapes an error takes on the wire.

Callers branch on `code`; nobody matches message text. LoRAX routes answer `LoraxError`, all others `OpenAIError`;
both carry the same code.
"""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class ErrorCode(StrEnum):
    """What went wrong, by what the caller can do about it."""

    INVALID_REQUEST = "invalid_request"
    """The request itself is wrong; the message names the field and the remedy. Do not retry."""
    MODEL_NOT_FOUND = "model_not_found"
    """No base model of that name is served."""
    MODEL_AMBIGUOUS = "model_ambiguous"
    """The name fits several models or adapters; the message lists the full names."""
    ADAPTER_NOT_FOUND = "adapter_not_found"
    """No adapter of that name exists; the message lists those that do."""
    VERSION_NOT_FOUND = "version_not_found"
    """The adapter exists but not that version; the message lists the versions that do."""
    ADAPTER_NOT_READY = "adapter_not_ready"
    """The adapter exists but no pod has it resident yet. Retry after the given time."""
    NO_READY_POD = "no_ready_pod"
    """No pod of the model is ready, or none came up within the queue's waiting time. Retry after the given time."""
    OVERLOADED = "overloaded"
    """The queue is full. Retry after the given time."""
    DRAINING = "draining"
    """The pod is going away and takes no new requests. Retry elsewhere."""
    UPSTREAM_FAILED = "upstream_failed"
    """The pod failed while it was answering."""
    GENERATION_FAILED = "generation_failed"
    """The engine failed on this request."""
    NOT_FOUND = "not_found"
    """No such route."""
    METHOD_NOT_ALLOWED = "method_not_allowed"
    """The route exists for other methods only."""
    INTERNAL = "internal"
    """A fault of ours; the log has the traceback under the request id."""


class LoraxError(BaseModel):
    """The error body of the LoRAX routes."""

    model_config = ConfigDict(frozen=True)

    error: str
    error_type: str
    code: ErrorCode


class OpenAIErrorDetail(BaseModel):
    """What went wrong, in the OpenAI API's field names."""

    model_config = ConfigDict(frozen=True)

    message: str
    type: str
    param: str | None = None
    code: ErrorCode


class OpenAIError(BaseModel):
    """The error body of the OpenAI routes and of our own."""

    model_config = ConfigDict(frozen=True)

    error: OpenAIErrorDetail


_LORAX_PATHS = frozenset(
    {"/", "/generate", "/generate_stream", "/invocations", "/info", "/health", "/ping", "/tokenize"}
    # Not served, but asked for by lorax-client, which should understand the refusal.
    | {"/embed", "/classify", "/classify_batch"}
)


def speaks_lorax(path: str) -> bool:
    """Whether errors on this path take LoRAX's shape; on all others they take the OpenAI API's."""
    return path in _LORAX_PATHS


LORAX_ERROR_TYPES: dict[ErrorCode, tuple[int, str]] = {
    ErrorCode.INVALID_REQUEST: (422, "validation"),
    ErrorCode.MODEL_NOT_FOUND: (424, "generation"),
    ErrorCode.MODEL_AMBIGUOUS: (424, "generation"),
    ErrorCode.ADAPTER_NOT_FOUND: (404, "adapter_not_found"),
    ErrorCode.VERSION_NOT_FOUND: (404, "version_not_found"),
    ErrorCode.ADAPTER_NOT_READY: (503, "adapter_not_ready"),
    ErrorCode.NO_READY_POD: (503, "no_ready_pod"),
    ErrorCode.OVERLOADED: (429, "overloaded"),
    ErrorCode.DRAINING: (503, "draining"),
    ErrorCode.UPSTREAM_FAILED: (502, "generation"),
    ErrorCode.GENERATION_FAILED: (424, "generation"),
    ErrorCode.NOT_FOUND: (404, "not_found"),
    ErrorCode.METHOD_NOT_ALLOWED: (405, "method_not_allowed"),
    ErrorCode.INTERNAL: (500, "generation"),
}
"""HTTP status and LoRAX `error_type` by code. An unknown adapter is 404 (lorax-client raises NotFoundError) where LoRAX
itself says 424: a wrong name is the caller's to correct, not the server's to retry."""

OPENAI_STATUS: dict[ErrorCode, int] = {
    code: {422: 400, 424: 500}.get(status, status) for code, (status, _) in LORAX_ERROR_TYPES.items()
} | {ErrorCode.MODEL_NOT_FOUND: 404, ErrorCode.MODEL_AMBIGUOUS: 400}
"""HTTP status by code on the OpenAI routes and our own."""


def lorax_error(code: ErrorCode, message: str) -> tuple[int, LoraxError]:
    """Status and body of an error on a LoRAX route."""
    status, error_type = LORAX_ERROR_TYPES[code]
    return status, LoraxError(error=message, error_type=error_type, code=code)


def openai_error(code: ErrorCode, message: str, param: str | None = None) -> tuple[int, OpenAIError]:
    """Status and body of an error on an OpenAI route or one of our own."""
    status = OPENAI_STATUS[code]
    kind = "invalid_request_error" if status < 500 and status != 429 else "server_error"
    return status, OpenAIError(error=OpenAIErrorDetail(message=message, type=kind, param=param, code=code))
