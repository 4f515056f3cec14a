"""Which S3 endpoints a Secret may name. Pure.

A bucket is another one at every endpoint: whoever chooses that chooses the bytes, whatever policy says of the bucket.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final

from yarl import URL

from motet_api.reasons import AdapterReason
from motet_operator.store.sources.contract import SourceError

_PARTITION: Final = "aws"
"""Names of buckets are unique in a partition of AWS; those of China and of governments are others."""


def check_endpoint(endpoint: str, named: bool, partition: str, patterns: Iterable[str]) -> None:
    """Raises: SourceError unless the endpoint is AWS's own, or a pattern fits its scheme, host and port.

    Args:
        named: whether the Secret names it; else it follows from the region, which is in `partition`.
    """
    allowed = list(patterns)
    if "*" in allowed or (not named and partition == _PARTITION):
        return
    try:
        url = URL(endpoint)
        origin = str(url.origin())
    except ValueError as error:
        message = "the Secret's endpoint is none: endpoint is http(s)://host"
        raise SourceError(AdapterReason.INVALID_SOURCE, message) from error
    # A path would come before the bucket's name, and make another bucket of it.
    plain = url.path in {"", "/"} and not url.raw_query_string and not url.raw_fragment and url.user is None
    if not (plain and any(fnmatchcase(origin, pattern.rstrip("/")) for pattern in allowed)):
        message = (
            f"the Secret of source.secretRef names the endpoint or region of {origin}, which policy does not allow "
            "here: leave endpoint out for AWS, or have the installation's administrator add http(s)://host to "
            "s3Endpoints (chart value policy)"
        )
        raise SourceError(AdapterReason.SOURCE_NOT_ALLOWED, message)
