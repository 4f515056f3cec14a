"""When a failure is tried again. Pure."""

import random
from typing import Final

from motet_api.reasons import AdapterReason

FIRST_SECONDS: Final = 5.0
MOST_SECONDS: Final = 900.0
PERMANENT_SECONDS: Final = 86_400.0
"""What nobody heals by waiting is looked at again this often all the same: the remote files may have been replaced."""
SIGNATURE_SECONDS: Final = 600.0
"""A signature may be laid beside the files later, which changes nothing of the request."""


def seconds(reason: AdapterReason, attempts: int, retry_after: float | None, jitter: random.Random) -> float:
    """Seconds until the next attempt, after so many in a row have failed."""
    if not reason.transient:
        return PERMANENT_SECONDS
    doubled = min(MOST_SECONDS, FIRST_SECONDS * 2.0 ** min(attempts - 1, 16))
    return max(doubled * jitter.uniform(0.75, 1.25), retry_after or 0.0)
