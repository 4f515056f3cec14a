"""What goes wrong in the store.

StoreError             why an artifact is not served: a reason of the API and a message for people
BeyondBoundsError      an artifact is larger than anybody who asks for it may have: no failure, it is not fetched
sources.SourceError    the same, said by a source (sources/contract.py)
motet_api's ArtifactError    the same, said by a check of files
"""

from motet_api.reasons import AdapterReason


class StoreError(Exception):
    """Why an artifact is not served. `retry_after` is what the source asked for, in seconds."""

    def __init__(self, reason: AdapterReason, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


class BeyondBoundsError(Exception):
    """An artifact has more bytes than anybody who asks for it may have. `size` is None if its source does not say."""

    def __init__(self, size: int | None) -> None:
        super().__init__(f"{size} bytes")
        self.size = size
