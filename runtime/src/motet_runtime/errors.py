"""What can go wrong in the runtime, split by who has to act.

MotetRuntimeError
├── RequestError      the caller's request cannot be served; carries a wire code
├── AdapterError      an adapter cannot be loaded; carries a reason for the operator
└── ModelError        the base model cannot be served at all; the process ends
"""

from motet_api.errors import ErrorCode
from motet_api.reasons import AdapterReason


class MotetRuntimeError(Exception):
    """Base of this package's errors."""


class RequestError(MotetRuntimeError):
    """A request that cannot be served. `param` names the field at fault."""

    def __init__(self, code: ErrorCode, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


class AdapterError(MotetRuntimeError):
    """An adapter that cannot be loaded."""

    def __init__(self, reason: AdapterReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class ModelError(MotetRuntimeError):
    """A base model that cannot be served."""
