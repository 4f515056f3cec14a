"""Errors of the operator, split by what the caller does about them.

OperatorError
+-- UnavailableError     the API server or a pod did not answer, or was busy: try the whole pass again later
|   +-- ConflictError    the object is another one by now (409): look again, then decide anew
|   +-- NotLeadingError  another replica may be at work: nothing was sent
+-- RefusedError         the API server understood and said no (400, 403, 422): report it, nothing heals it by itself
+-- NotFoundError        the object is not there (404)
+-- SilentPodError       a runtime pod did not answer as agreed: what it holds is unknown
+-- SilentStoreError     the adapter store did not answer as agreed: what it holds is unknown
+-- WatchesEndedError    kopf gave up: only a new process helps
"""


class OperatorError(Exception):
    """Root of the tree."""


class UnavailableError(OperatorError):
    """Not now."""


class ConflictError(UnavailableError):
    """Somebody was faster."""


class NotLeadingError(UnavailableError):
    """This replica must not act."""


class RefusedError(OperatorError):
    """The API server said no; the message is its own."""


class NotFoundError(OperatorError):
    """There is no such object."""


class SilentPodError(OperatorError):
    """The pod did not answer, or not as agreed."""


class SilentStoreError(OperatorError):
    """The adapter store did not answer, or not as agreed."""


class WatchesEndedError(OperatorError):
    """Nothing tells of changes any more."""
