"""The one thing that a check says: why not.

ArtifactError      an adapter that cannot be taken; carries the reason that conditions and reports give
"""

from typing import Final

from motet_api.reasons import AdapterReason

_MAX_MESSAGE: Final = 1000


class ArtifactError(Exception):
    """An adapter that cannot be taken: `reason` for programs, `message` for people (what is wrong, and the remedy)."""

    def __init__(self, reason: AdapterReason, message: str) -> None:
        # It may quote what was found, which may be a megabyte.
        message = message if len(message) <= _MAX_MESSAGE else f"{message[:_MAX_MESSAGE]}..."
        super().__init__(message)
        self.reason = reason
        self.message = message
