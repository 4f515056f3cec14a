"""Why an S3 endpoint refuses, by the code in its answer: the same status means many things there. Pure."""

import re
from typing import Final

from motet_api.reasons import AdapterReason
from motet_operator.store.sources.contract import SourceError

REFUSALS: Final = frozenset({301, 400, 403, 404})
"""The statuses whose bodies say more."""
MAX_REFUSAL_BYTES: Final = 64 << 10
_CODE: Final = re.compile(rb"<Code>([A-Za-z0-9]{1,64})</Code>")
_MISSING: Final = frozenset({"NoSuchBucket", "NoSuchKey"})
_ELSEWHERE: Final = frozenset(
    {
        "AuthorizationHeaderMalformed",
        "AuthorizationQueryParametersError",
        "IllegalLocationConstraintException",
        "PermanentRedirect",
    }
)


def refusal(status: int, body: bytes, bucket: str) -> SourceError:
    """The error for an answer with one of `REFUSALS`."""
    found = _CODE.search(body)
    code = found[1].decode() if found else ""
    if code in _MISSING or (not code and status == 404):
        return SourceError(AdapterReason.SOURCE_NOT_FOUND, f"s3://{bucket} does not exist ({code or status})")
    if code in _ELSEWHERE or status == 301:
        message = f"s3://{bucket} is in another region ({code or status}): set `region` in the Secret"
        return SourceError(AdapterReason.INVALID_SOURCE, message)
    message = f"s3://{bucket} refuses the keys in source.secretRef, or wants some ({code or status})"
    return SourceError(AdapterReason.SOURCE_FORBIDDEN, message)
