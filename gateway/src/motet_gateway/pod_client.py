"""Asks one pod, once: sends the call, and makes sure that what answers is what was asked.

Invariant: an answer that is handed on came from the version that was chosen, as the pod itself says. An answer of the
base in an adapter's place is a failure.
"""

import io
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import aiohttp

from motet_api.errors import ErrorCode
from motet_api.modeldeployment import EngineType
from motet_api.names import ADAPTER_HEADER, ADAPTER_VERSION_HEADER
from motet_gateway.calls import Call
from motet_gateway.capture import is_fault
from motet_gateway.dispatch import RETRY_SECONDS
from motet_gateway.engines import answered_model, vllm_error
from motet_gateway.errors import GatewayError, UnavailableError, UpstreamError
from motet_gateway.pods import CONNECT_SECONDS
from motet_gateway.table import Pod, PodKey
from motet_gateway.upstream_errors import error_code, error_message

_COPIED_BYTES: Final = 1 << 20
"""aiohttp writes a body of bytes in one piece; above this size it is given as a file, which it writes in portions."""
_SAYS_MODEL_BYTES: Final = 1 << 16
"""An answer of vLLM that has not said within so many bytes who answers is refused."""
EVENT_STREAM: Final = "text/event-stream"

log = logging.getLogger(__name__)


class Surprises(Protocol):
    """Is told what a pod turned out to be when a request met it."""

    def doubt(self, pod: PodKey) -> None:
        """It could not be reached, or does not hold what it was believed to hold."""

    def draining(self, pod: PodKey) -> None:
        """It is draining."""


@dataclass(frozen=True, slots=True)
class NotTaken:
    """The pod did not take the request: `cause` for the metrics, `error` for the client if no other pod takes it."""

    cause: str
    error: GatewayError


@dataclass(frozen=True, slots=True)
class Taken:
    """The pod answers. `first` has been read already: all of an error, the first piece of anything else.

    `fault` says that it is an error for which the version or its engine is to blame.
    """

    response: aiohttp.ClientResponse
    first: bytes
    fault: bool


class PodClient:
    """Sends calls to pods. `read_seconds` bounds the silence between two pieces of an answer."""

    def __init__(self, session: aiohttp.ClientSession, surprises: Surprises, read_seconds: float) -> None:
        self._session = session
        self._surprises = surprises
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=read_seconds)

    @asynccontextmanager
    async def asked(
        self, call: Call, pod: Pod, headers: Mapping[str, str], last_resort: bool = False
    ) -> AsyncIterator[Taken | NotTaken]:
        """Send the call; the answer is open inside the block.

        Args:
            last_resort: the pod has failed to load the version, so it is no surprise if it does not hold it.

        Raises:
            GatewayError: the pod failed in a way that another pod should not be asked.
        """
        try:
            response = await self._session.request(
                call.method,
                f"http://{pod.address}{call.path}",
                data=(io.BytesIO(call.body) if len(call.body) > _COPIED_BYTES else call.body) or None,
                headers={**call.headers, **headers, "accept-encoding": "identity"},
                timeout=self._timeout,
                allow_redirects=False,
            )
        except aiohttp.SocketTimeoutError as error:
            raise self._silent(pod) from error
        except aiohttp.ClientConnectionError as error:
            yield self._lost(pod, error)
            return
        except aiohttp.ClientError as error:
            raise UpstreamError(f"pod {pod.key.name} did not answer in HTTP: {error}") from error
        async with response:
            yield await self._judged(call, pod, response, last_resort)

    async def _judged(
        self, call: Call, pod: Pod, response: aiohttp.ClientResponse, last_resort: bool
    ) -> Taken | NotTaken:
        vllm = call.route.model.engine is EngineType.VLLM
        try:
            # An error is read whole, for its code; of anything else the first piece, which decides over a retry.
            if response.status >= 400:
                first = await response.read()
            else:
                first = await (_until_it_says_who(response) if vllm else response.content.readany())
        except aiohttp.SocketTimeoutError as error:
            raise self._silent(pod) from error
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
            return self._lost(pod, error)
        if response.status < 400:
            self._check_version(call, pod, _who_answered(call, response, first))
            return Taken(response, first, fault=False)
        code = _vllm_code(call, response.status) if vllm else error_code(first)
        if (not_taken := self._refusal(call, pod, code, first, last_resort)) is not None:
            return not_taken
        if vllm:
            raise vllm_error(response.status, first)
        return Taken(response, first, is_fault(response.status, code))

    def _lost(self, pod: Pod, error: Exception) -> NotTaken:
        self._surprises.doubt(pod.key)
        return NotTaken("lost", UpstreamError(f"pod {pod.key.name} could not be reached: {error}"))

    def _refusal(self, call: Call, pod: Pod, code: ErrorCode | None, body: bytes, last_resort: bool) -> NotTaken | None:
        """Whether an error answer means that another pod should be asked."""
        adapter = call.route.runtime_id
        if code is ErrorCode.DRAINING:
            self._surprises.draining(pod.key)
            return NotTaken("draining", _unavailable(ErrorCode.NO_READY_POD, f"pod {pod.key.name} is draining"))
        if code is ErrorCode.NO_READY_POD:
            self._surprises.doubt(pod.key)
            return NotTaken("loading", _unavailable(code, f"pod {pod.key.name} has started anew and loads its base"))
        # The version exists, or it would not have been resolved: to the pod it may be unknown, to us it is only absent.
        absent = {ErrorCode.ADAPTER_NOT_READY, ErrorCode.ADAPTER_NOT_FOUND, ErrorCode.VERSION_NOT_FOUND}
        if adapter is not None and code in absent:
            message = f"pod {pod.key.name} does not hold {adapter}: {error_message(body)}"
            if last_resort:
                raise _unavailable(ErrorCode.ADAPTER_NOT_READY, message)
            self._surprises.doubt(pod.key)
            return NotTaken("absent", _unavailable(ErrorCode.ADAPTER_NOT_READY, message))
        return None

    def _silent(self, pod: Pod) -> UpstreamError:
        return UpstreamError(f"pod {pod.key.name} did not answer within {self._timeout.sock_read:g} s")

    def _check_version(self, call: Call, pod: Pod, answered: str) -> None:
        wanted = call.route.runtime_id or ""
        if answered != wanted:
            said, asked = answered or "the base model", wanted or "the base"
            log.error("pod %s answered from %s where %s was asked", pod.key.name, said, asked)
            raise UpstreamError(f"pod {pod.key.name} answered from {said}, not from {asked}")


def _who_answered(call: Call, response: aiohttp.ClientResponse, first: bytes) -> str:
    """The runtime id that answered, as the pod says; empty for the base."""
    if call.route.model.engine is EngineType.VLLM:
        said = answered_model(first)
        if said is None:
            return "a model that it does not name"
        # A runtime id has a version; the name under which vLLM serves the base has none.
        return said if "@" in said else ""
    name, version = (response.headers.get(header, "") for header in (ADAPTER_HEADER, ADAPTER_VERSION_HEADER))
    return f"{name}@{version}" if name or version else ""


async def _until_it_says_who(response: aiohttp.ClientResponse) -> bytes:
    """The beginning of an answer of vLLM as far as its `model`, or the whole, if that is not a stream of events."""
    if response.content_type != EVENT_STREAM:
        return await response.read()
    first = b""
    while len(first) < _SAYS_MODEL_BYTES and answered_model(first) is None:
        piece = await response.content.readany()
        if not piece:
            break
        first += piece
    return first


def _vllm_code(call: Call, status: int) -> ErrorCode | None:
    """vLLM has no machine codes of ours; these two are all that routing goes by."""
    if status == 404 and call.route.runtime_id is not None:
        return ErrorCode.ADAPTER_NOT_FOUND
    return ErrorCode.NO_READY_POD if status == 503 else None


def _unavailable(code: ErrorCode, message: str) -> UnavailableError:
    return UnavailableError(code, message, RETRY_SECONDS[code])
