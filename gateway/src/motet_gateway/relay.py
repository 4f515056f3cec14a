"""Passes a pod's answer on to the client, piece by piece as it comes."""

import logging
from typing import Final

import aiohttp
from starlette.types import Send

from motet_api.names import ADAPTER_HEADER, ADAPTER_VERSION_HEADER, MODEL_HEADER, POD_HEADER, REQUEST_ID_HEADER
from motet_gateway.answers import error_body
from motet_gateway.capture import Capture
from motet_gateway.errors import UpstreamError
from motet_gateway.exchange import Exchange
from motet_gateway.pod_client import EVENT_STREAM
from motet_gateway.resolve import Route
from motet_gateway.table import Pod

log = logging.getLogger(__name__)

_NOT_PASSED_ON: Final = frozenset(
    {
        # Of the connection, not of the answer (RFC 9110, 7.6.1).
        *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
        # The gateway's own server sets these.
        *(b"server", b"date"),
        # The gateway says these itself.
        *(
            name.encode()
            for name in (MODEL_HEADER, ADAPTER_HEADER, ADAPTER_VERSION_HEADER, POD_HEADER, REQUEST_ID_HEADER)
        ),
    }
)


class Relay:
    """One answer on its way. `kept_bytes` is how much of it is kept to be compared."""

    def __init__(
        self, route: Route, pod: Pod, exchange: Exchange, response: aiohttp.ClientResponse, kept_bytes: int = 0
    ) -> None:
        self._route = route
        self._pod = pod
        self._exchange = exchange
        self._response = response
        self.capture = Capture(kept_bytes)

    async def run(self, first: bytes, send: Send) -> bool:
        """Send the answer, of which `first` has been read. Whether the pod gave it to its end, and without an error.

        From here on a failure of the pod can only be told to the client as an event (in a stream of events) or by
        ending the connection before the answer is complete.
        """
        content = self._response.content
        await send({"type": "http.response.start", "status": self._response.status, "headers": self._headers()})
        self.capture.take(first)
        if content.at_eof():
            await send({"type": "http.response.body", "body": first})
            return self._without_error()
        await send({"type": "http.response.body", "body": first, "more_body": True})
        try:
            while chunk := await content.readany():
                self.capture.take(chunk)
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except (aiohttp.ClientError, TimeoutError) as error:
            await self._broke_off(error, send)
            return False
        await send({"type": "http.response.body", "body": b""})
        return self._without_error()

    def _without_error(self) -> bool:
        return self._response.content_type != EVENT_STREAM or not self.capture.failed_in_a_stream

    async def _broke_off(self, error: Exception, send: Send) -> None:
        failure = UpstreamError(f"pod {self._pod.key.name} broke off its answer: {error or type(error).__name__}")
        log.warning("request %s: %s", self._exchange.request_id, failure)
        self._exchange.outcome, text = error_body(self._response.url.path, failure)
        if self._response.content_type == EVENT_STREAM:
            # The blank line ends whatever event was cut in two.
            await send({"type": "http.response.body", "body": f"\n\ndata: {text}\n\n".encode()})

    def _headers(self) -> list[tuple[bytes, bytes]]:
        passed = [(name.lower(), value) for name, value in self._response.raw_headers]
        said = {MODEL_HEADER: str(self._route.model.key), POD_HEADER: self._pod.key.name}
        if self._route.adapter is not None and self._route.version is not None:
            said |= {ADAPTER_HEADER: self._route.adapter_name, ADAPTER_VERSION_HEADER: self._route.version}
        return [
            *((name, value) for name, value in passed if name not in _NOT_PASSED_ON),
            *((name.encode(), value.encode()) for name, value in said.items()),
        ]
