"""What goes wrong in the store.

StoreError             why an artifact is not served: a reason of the API and a message for people
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
