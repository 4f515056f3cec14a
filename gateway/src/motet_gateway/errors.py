"""Errors of the gateway, split by what the caller does about them.

GatewayError              an answer that is not a pod's
├── RequestRefusedError   the request itself is wrong, or names what does not exist: do not retry
├── UnavailableError      what it names exists but cannot be had now: retry after `retry_after` seconds
└── UpstreamError         the pod failed while it answered: the caller decides
SourceError               there is no routing table to start with: the process ends
"""

from motet_api.errors import ErrorCode


class GatewayError(Exception):
    """An answer that is not the pod's. `status` overrides the one that the code usually has."""

    retry_after: int | None = None

    def __init__(self, code: ErrorCode, message: str, *, param: str | None = None, status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.status = status


class SourceError(Exception):
    """The source of the routing table cannot be used as it is configured."""


class RequestRefusedError(GatewayError):
    """The request is wrong, or names what does not exist."""


class UnavailableError(GatewayError):
    """Not now. `retry_after` is in whole seconds, as the header wants it."""

    def __init__(self, code: ErrorCode, message: str, retry_after: int) -> None:
        super().__init__(code, message)
        self.retry_after = retry_after


class UpstreamError(GatewayError):
    """The pod did not answer as agreed."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.UPSTREAM_FAILED, message)
