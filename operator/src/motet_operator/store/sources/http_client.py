"""The one HTTP client of all sources. What holds for every request, whichever scheme it is for:

- connections only to permitted addresses (`connector.py`); no proxy, no cookies, no environment
- credentials over plain http only to networks that the installation names
- at most three redirects, each to http(s) and checked like the first; credentials stay with the origin they are for
- the body as it is: a Content-Encoding is refused, so nothing is ever decompressed here
- time to connect, to the headers, between bytes, for the whole, and a least rate
- no query of a URL in a message: signatures are in there
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Final, Self

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from motet_api.reasons import AdapterReason
from motet_operator.store.sources.answers import check_status
from motet_operator.store.sources.connector import Refused, guarded_connector, refused, refused_credentials
from motet_operator.store.sources.contract import Limits, SourceError
from motet_operator.store.sources.file_names import too_large
from motet_operator.store.sources.networks import AddressRule, NamedOnly
from motet_operator.store.sources.pace import Pace

MAX_REDIRECTS: Final = 3
_CHUNK: Final = 1 << 18
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_SIGNATURE: Final = "X-Amz-Signature"
"""In the query of an S3 request that was signed: whoever sees it can ask the same for an hour."""
_NO_HEADERS: Final[Mapping[str, str]] = {}


def shown(url: URL) -> str:
    """A URL as messages may show it: without user, query and fragment."""
    return str(url.with_user(None).with_query(None).with_fragment(None))


def read_url(text: str) -> URL:
    """Read an http(s) URL. Raises: SourceError."""
    try:
        url = URL(text)
        usable = url.scheme in {"http", "https"} and bool(url.host)
    except ValueError:
        usable = False
    if not usable:
        raise SourceError(AdapterReason.INVALID_SOURCE, "source.uri must be http(s)://host/path")
    if url.user is not None or url.password is not None:
        message = "source.uri must not hold a user or password: put them into the Secret of source.secretRef"
        raise SourceError(AdapterReason.INVALID_SOURCE, message)
    return url


class HttpClient:
    """Enter it before use; it holds the connections."""

    def __init__(self, networks: AddressRule, limits: Limits, resolver: AbstractResolver | None = None) -> None:
        self._networks = networks
        self._resolver = resolver
        self.limits = limits
        self._session: aiohttp.ClientSession | None = None
        self._open_session: aiohttp.ClientSession | None = None
        """For credentials over plain http."""

    async def __aenter__(self) -> Self:
        self._session = self._make_session(self._networks, refused)
        self._open_session = self._make_session(NamedOnly(self._networks), refused_credentials)
        return self

    def _make_session(self, networks: AddressRule, refused: Refused) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=guarded_connector(networks, self._resolver, refused),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=self.limits.connect_seconds, sock_read=self.limits.idle_seconds
            ),
            auto_decompress=False,
            trust_env=False,
        )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for session in (self._session, self._open_session):
            if session is not None:
                await session.close()

    @asynccontextmanager
    async def open(
        self,
        url: URL,
        *,
        method: str = "GET",
        headers: Mapping[str, str] = _NO_HEADERS,
        secret: Mapping[str, str] = _NO_HEADERS,
        passing: frozenset[int] = frozenset(),
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer, its body unread, after redirects. `secret` headers go to the URL's own origin only.

        Raises:
            SourceError: no connection, not permitted, or a status other than 2xx and `passing`.
        """
        origin = url.origin()
        for _ in range(MAX_REDIRECTS + 1):
            allowed = secret if url.origin() == origin else _NO_HEADERS
            in_the_open = url.scheme == "http" and (bool(allowed) or _SIGNATURE in url.query)
            session = self._open_session if in_the_open else self._session
            answer = await self._request(session, method, url, {**headers, **allowed})
            try:
                if answer.status in _REDIRECTS and "Location" in answer.headers:
                    url = _next(url, answer.headers["Location"])
                    continue
                check_status(answer, shown(url), passing)
                yield answer
                return
            finally:
                answer.close()
        raise SourceError(
            AdapterReason.INVALID_SOURCE, f"{shown(url)}: more than {MAX_REDIRECTS} redirects; name the last address"
        )

    async def _request(
        self, session: aiohttp.ClientSession | None, method: str, url: URL, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        assert session is not None, "enter the client first"
        # Beside the socket's own limits: a server that drips headers would keep within them for ever.
        try:
            async with asyncio.timeout(self.limits.connect_seconds + self.limits.idle_seconds):
                return await session.request(
                    method, url, headers={**headers, "Accept-Encoding": "identity"}, allow_redirects=False
                )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise _failed(url, error) from error

    async def chunks(
        self, answer: aiohttp.ClientResponse, at_most: int, longer: SourceError | None = None
    ) -> AsyncGenerator[bytes, None]:
        """The body. Raises: SourceError when it breaks off, comes too slowly or is longer than `at_most` (`longer`)."""
        pace = Pace(self.limits)
        received = 0
        name = shown(answer.url)
        while True:
            started = time.monotonic()
            try:
                chunk = await answer.content.read(min(_CHUNK, at_most - received + 1))
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise _failed(answer.url, error) from error
            if not chunk:
                return
            received += len(chunk)
            if received > at_most:
                raise longer or too_large(f"{name} has more bytes than is taken of it", at_most)
            complaint = pace.complaint(time.monotonic() - started, len(chunk))
            if complaint is not None:
                raise SourceError(AdapterReason.FETCH_FAILED, f"{name} {complaint}")
            yield chunk

    async def document(
        self,
        url: URL,
        at_most: int,
        *,
        headers: Mapping[str, str] = _NO_HEADERS,
        secret: Mapping[str, str] = _NO_HEADERS,
    ) -> bytes:
        """A small body, whole. Raises: SourceError."""
        async with self.open(url, headers=headers, secret=secret) as answer:
            return b"".join([chunk async for chunk in self.chunks(answer, at_most)])


def _next(url: URL, location: str) -> URL:
    """Where a redirect leads. Raises: SourceError for anything but http(s), and from https to http."""
    try:
        target = url.join(URL(location))
        followed = target.scheme in {"http", "https"} and bool(target.host)
    except ValueError:
        followed = False
    if not followed or (url.scheme, target.scheme) == ("https", "http"):
        message = f"{shown(url)} redirects to what is no http(s) address, or from https to http; it is not followed"
        raise SourceError(AdapterReason.SOURCE_NOT_ALLOWED, message)
    return target


def _failed(url: URL, error: Exception) -> SourceError:
    """The error for a transport fault. aiohttp's own texts can hold the whole URL, so only OSError's are used."""
    certificate = isinstance(error, aiohttp.ClientConnectorCertificateError)
    if isinstance(error, ValueError) and not certificate:
        return SourceError(AdapterReason.INVALID_SOURCE, f"{url.host or 'source.uri'} leads to a URL that is none")
    if isinstance(error, TimeoutError):
        text = "did not answer in time"
    elif certificate:
        text = "has a certificate of no authority that the store trusts"
    elif isinstance(error, aiohttp.ClientConnectorError):
        text = f"cannot be connected to: {error.os_error.strerror or type(error.os_error).__name__}"
    elif isinstance(error, aiohttp.ClientPayloadError):
        text = "broke off before its Content-Length"
    else:
        text = f"failed ({type(error).__name__})"
    return SourceError(AdapterReason.FETCH_FAILED, f"{shown(url)} {text}")
