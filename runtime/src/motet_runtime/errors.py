"""What can go wrong in the runtime, split by who has to act.

MotetRuntimeError
├── RequestError      the caller's request cannot be served; carries a wire code
├── FolderError       a folder cannot take what is to be fetched into it; the process ends
└── ModelError        the base model cannot be served at all; the process ends

AdapterError          an adapter cannot be loaded; carries a reason for the operator. The checks' own error
                      (`motet_api.artifact`), since most of what is wrong with an adapter is found by them
"""

from motet_api.artifact.errors import ArtifactError
from motet_api.errors import ErrorCode

AdapterError = ArtifactError


class MotetRuntimeError(Exception):
    """Base of this package's errors."""


class RequestError(MotetRuntimeError):
    """A request that cannot be served. `param` names the field at fault."""

    def __init__(self, code: ErrorCode, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


class FolderError(MotetRuntimeError):
    """A folder that cannot take what is to be fetched into it."""


class ModelError(MotetRuntimeError):
    """A base model that cannot be served."""
