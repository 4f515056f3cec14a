"""What an HTTP answer says about a source: its status as a reason, and whether the body can be the file at all."""

import re
from typing import Final

import aiohttp

from motet_api.reasons import AdapterReason
from motet_operator.store.sources.contract import SourceError

_PAGE: Final = re.compile(rb"\s*<(!doctype html|html|head|body)", re.IGNORECASE)
_PAGE_TYPES: Final = frozenset({"text/html", "application/xhtml+xml"})
_LONGEST_WAIT: Final = 3600.0
PEEK: Final = 64
"""As many of the first bytes are looked at."""


def check_status(answer: aiohttp.ClientResponse, name: str, passing: frozenset[int]) -> None:
    """Raises: SourceError unless the status is 2xx or in `passing`, and the body as it is."""
    status = answer.status
    if status in passing:
        return
    if status in {401, 403}:
        message = f"{name} answered {status}: check the credentials in source.secretRef, and that it exists"
        raise SourceError(AdapterReason.SOURCE_FORBIDDEN, message)
    if status in {404, 410}:
        raise SourceError(AdapterReason.SOURCE_NOT_FOUND, f"{name} does not exist ({status})")
    if status == 451 or 300 <= status < 400:
        raise SourceError(AdapterReason.INVALID_SOURCE, f"{name} answered {status}: name its present address")
    if not 200 <= status < 300:
        raise SourceError(AdapterReason.FETCH_FAILED, f"{name} answered {status}", retry_after(answer))
    encoding = answer.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        message = f"{name} is sent with a Content-Encoding, though none was accepted: serve the file as it is"
        raise SourceError(AdapterReason.INVALID_SOURCE, message)


def retry_after(answer: aiohttp.ClientResponse) -> float | None:
    """The seconds of Retry-After, at most an hour; dates are not read."""
    text = answer.headers.get("Retry-After", "").strip()
    return min(float(text), _LONGEST_WAIT) if re.fullmatch(r"\d{1,9}", text) else None


def check_no_page(content_type: str, first: bytes, name: str) -> None:
    """Raises: SourceError for a web page, such as a form to log in, where a file was asked for."""
    if content_type.lower() in _PAGE_TYPES or _PAGE.match(first):
        message = f"{name} is a web page, not the file: does it want a login, or is it the address of a viewer?"
        raise SourceError(AdapterReason.INVALID_SOURCE, message)
