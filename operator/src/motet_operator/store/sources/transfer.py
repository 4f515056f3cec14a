"""One file's bytes over HTTP, from an offset on: of the size, identity and digest that were listed, or an error."""

import hashlib
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

import aiohttp
from yarl import URL

from motet_api.reasons import AdapterReason
from motet_operator.store.sources.answers import PEEK, check_no_page
from motet_operator.store.sources.contract import RemoteFile, SourceChangedError, SourceError
from motet_operator.store.sources.http_client import HttpClient, shown

Identify = Callable[[Mapping[str, str]], str | None]
"""Reads a file's identity from the headers of an answer; None where they do not say."""


async def transfer(
    client: HttpClient,
    url: URL,
    file: RemoteFile,
    offset: int,
    identify: Identify | None,
    headers: Mapping[str, str] | None = None,
    secret: Mapping[str, str] | None = None,
) -> AsyncGenerator[bytes, None]:
    """The bytes from `offset` on.

    Without `identify` the URL itself pins the bytes (a commit, a digest). With it, an answer that does not say its
    identity can only be read from the start.

    Raises:
        SourceChangedError: size or identity differ from the listing's.
        SourceError: anything else that goes wrong.
    """
    asked = {**(headers or {}), **({"Range": f"bytes={offset}-"} if offset else {})}
    async with client.open(url, headers=asked, secret=secret or {}, passing=frozenset({412, 416})) as answer:
        if answer.status in {412, 416}:
            raise SourceChangedError(f"{file.name} has changed since it was listed: {shown(url)} refuses byte {offset}")
        check_no_page(answer.content_type if "Content-Type" in answer.headers else "", b"", f"{shown(url)}")
        if identify is not None:
            _check_identity(file, identify(answer.headers), offset)
        skip = _skipped(answer, file, offset)
        async with aclosing(_checked(client, answer, file, offset, skip)) as chunks:
            async for chunk in chunks:
                yield chunk


async def _checked(
    client: HttpClient, answer: aiohttp.ClientResponse, file: RemoteFile, offset: int, skip: int
) -> AsyncGenerator[bytes, None]:
    """The body less its first `skip` bytes; its length, its beginning and its digest as they must be."""
    expected = None if file.size is None else file.size - offset + skip
    digest = hashlib.sha256()
    received = 0
    most, longer = client.limits.max_file_bytes, None
    if expected is not None:
        most = expected
        longer = SourceChangedError(f"{file.name} is longer than the {file.size} bytes that were listed")
    async with aclosing(client.chunks(answer, most, longer)) as chunks:
        async for chunk in chunks:
            if received == 0 and offset == 0:
                check_no_page("", chunk[:PEEK], file.name)
            received += len(chunk)
            if offset == 0:
                digest.update(chunk)
            passed = max(0, min(len(chunk), skip - (received - len(chunk))))
            if passed < len(chunk):
                yield chunk[passed:] if passed else chunk
    if expected is not None and received != expected:
        message = f"{file.name} ended after {received} bytes of {expected}"
        raise SourceError(AdapterReason.FETCH_FAILED, message)
    if offset == 0 and file.sha256 is not None and digest.hexdigest() != file.sha256:
        message = f"{file.name} has the digest {digest.hexdigest()}, its source says {file.sha256}"
        raise SourceError(AdapterReason.DIGEST_MISMATCH, message)


def _check_identity(file: RemoteFile, found: str | None, offset: int) -> None:
    if found is None and offset:
        raise SourceChangedError(f"{file.name} cannot be resumed: its server does not say whether it has changed")
    if found is not None and found != file.identity:
        raise SourceChangedError(f"{file.name} has changed since it was listed")


def _skipped(answer: aiohttp.ClientResponse, file: RemoteFile, offset: int) -> int:
    """How many bytes of the body come before `offset`: all of them where the server does not serve ranges.

    Raises: SourceChangedError when the answer's length is not what was listed.
    """
    skip = 0 if answer.status == 206 or not offset else offset
    if answer.status == 206 and not answer.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
        raise SourceError(AdapterReason.FETCH_FAILED, f"{file.name}: another range was sent than was asked for")
    length = answer.content_length
    if file.size is not None and length is not None and length != file.size - offset + skip:
        message = (
            f"{file.name} has changed since it was listed: {length} bytes are sent, not {file.size - offset + skip}"
        )
        raise SourceChangedError(message)
    return skip
