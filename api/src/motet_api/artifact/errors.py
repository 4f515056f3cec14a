"""The one thing that a check says: why not.

ArtifactError      an adapter that cannot be taken; carries the reason that conditions and reports give
"""

from motet_api.reasons import AdapterReason


class ArtifactError(Exception):
    """An adapter that cannot be taken: `reason` for programs, `message` for people (what is wrong, and the remedy)."""

    def __init__(self, reason: AdapterReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
