"""A thin client of the API server: objects are dictionaries, writes are server-side apply, every call has a timeout."""

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import client

from motet_api.names import FIELD_MANAGER
from motet_operator.errors import (
    ConflictError,
    NotFoundError,
    NotLeadingError,
    OperatorError,
    RefusedError,
    UnavailableError,
)
from motet_operator.keys import RESOURCES, Kind

TIMEOUT_SECONDS: Final = 15.0
PAGE: Final = 500
TURNED_AWAY_AGAIN: Final = 2
"""How often a call is made again that was answered 429 with a time; after that, the pass is."""
LONGEST_PAUSE_SECONDS: Final = 30.0
_REFUSALS: Final = frozenset({400, 403, 405, 413, 415, 422})
_METADATA_ONLY: Final = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"

Manifest = Mapping[str, Any]


class CallObserver(Protocol):
    """Is told of calls of the API server."""

    def api_called(self, verb: str, resource: str, code: int, seconds: float) -> None:
        """`code` is the HTTP status, 0 if there was no answer; `resource` as a role names it: `pods/status`."""
        ...

    def api_waited(self, seconds: float) -> None:
        """A call waited for its turn."""
        ...


class Turns(Protocol):
    """Says when a call may be made."""

    async def take(self) -> float:
        """Wait for one's turn; returns the seconds waited."""
        ...

    def pause(self, seconds: float) -> None:
        """No call for so long: the API server asked for it."""
        ...


@dataclass(frozen=True, slots=True)
class _Answer:
    code: int
    text: bytes
    retry_after: float | None


class Cluster:
    """The API server, seen from `namespaces`, or from everywhere if there are none."""

    def __init__(
        self,
        api: client.ApiClient,
        observer: CallObserver,
        namespaces: Sequence[str] = (),
        turns: Turns | None = None,
        may_write: Callable[[], bool] = lambda: True,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        """Without `turns`, calls do not wait. `may_write` is asked at the last moment before each write."""
        self._api = api
        self._observer = observer
        self._scopes: Sequence[str | None] = list(namespaces) or [None]
        self._turns = turns
        self._may_write = may_write
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)

    async def get(self, kind: Kind, namespace: str, name: str) -> dict[str, Any]:
        """One object. Raises: NotFoundError, UnavailableError, RefusedError."""
        return await self._call("get", "GET", RESOURCES[kind].path(namespace, name))

    async def list(self, kind: Kind, metadata_only: bool = False) -> AsyncIterator[dict[str, Any]]:
        """All objects of a kind that are ours to see, page by page. Raises: UnavailableError, RefusedError."""
        headers = {"Accept": _METADATA_ONLY} if metadata_only else {}
        for scope in self._scopes:
            query = {"limit": str(PAGE)} | RESOURCES[kind].selector()
            while True:
                page = await self._call("list", "GET", RESOURCES[kind].path(scope), query, headers)
                for item in page.get("items") or []:
                    yield item
                token = page["metadata"].get("continue")
                if not token:
                    break
                query["continue"] = token

    async def apply(self, kind: Kind, manifest: Manifest) -> dict[str, Any]:
        """Make an object what the manifest says; returns it. Raises: ConflictError, UnavailableError, RefusedError."""
        metadata = manifest["metadata"]
        return await self._apply("apply", RESOURCES[kind].path(metadata["namespace"], metadata["name"]), manifest)

    async def apply_status(self, kind: Kind, manifest: Manifest) -> dict[str, Any]:
        """Write an object's status; returns the object. The manifest's uid keeps it from reaching another object, its
        resourceVersion from reaching another state of it.

        Raises: NotFoundError, ConflictError, UnavailableError, RefusedError.
        """
        metadata = manifest["metadata"]
        path = RESOURCES[kind].path(metadata["namespace"], metadata["name"], "status")
        return await self._apply("apply_status", path, manifest)

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        """Remove the object with this uid; no error if it is gone. Raises: ConflictError, UnavailableError."""
        body = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        try:
            await self._call("delete", "DELETE", RESOURCES[kind].path(namespace, name), body=body)
        except NotFoundError:
            return

    async def create_event(self, namespace: str, event: Manifest) -> None:
        """Post an Event (events.k8s.io/v1). Raises: UnavailableError, RefusedError."""
        await self._call("create", "POST", f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", body=event)

    async def create(self, path: str, body: Manifest) -> dict[str, Any]:
        """Post to a path and return the answer. Raises: UnavailableError, RefusedError."""
        return await self._call("create", "POST", path, body=body)

    async def replace(self, path: str, body: Manifest) -> dict[str, Any]:
        """Put a whole object in the place of the version that it names; returns it.

        Raises: ConflictError, NotFoundError, UnavailableError, RefusedError.
        """
        return await self._call("update", "PUT", path, body=body)

    async def read(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        """What is at a path. Raises: NotFoundError, UnavailableError, RefusedError."""
        return await self._call("get", "GET", path, query)

    async def _apply(self, verb: str, path: str, manifest: Manifest) -> dict[str, Any]:
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._call(verb, "PATCH", path, query, {"Content-Type": "application/apply-patch+yaml"}, manifest)

    async def _call(
        self,
        verb: str,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Manifest | None = None,
    ) -> dict[str, Any]:
        for _ in range(1 + TURNED_AWAY_AGAIN):
            answer = await self._once(verb, method, path, query, headers, body)
            if answer.code != 429 or answer.retry_after is None or self._turns is None:
                break
            self._turns.pause(min(answer.retry_after, LONGEST_PAUSE_SECONDS))
        if answer.code >= 400:
            raise _error(answer.code, f"{method} {path}", answer.text)
        found: dict[str, Any] = json.loads(answer.text)
        return found

    async def _once(
        self,
        verb: str,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        body: Manifest | None,
    ) -> _Answer:
        if self._turns is not None:
            self._observer.api_waited(await self._turns.take())
        if method != "GET" and not self._may_write():
            raise NotLeadingError(f"{method} {path}: not sent, because this replica leads no more")
        resource, began = resource_of(path), time.perf_counter()
        try:
            answer = await self._request(method, path, query, headers, body)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._observer.api_called(verb, resource, 0, time.perf_counter() - began)
            raise UnavailableError(f"{method} {path}: {error or repr(error)}") from error
        self._observer.api_called(verb, resource, answer.code, time.perf_counter() - began)
        return answer

    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        body: Manifest | None,
    ) -> _Answer:
        # Not by `param_serialize`, which walks through the body to make plain what is plain already.
        sent = {"Accept": "application/json", **(headers or {})}
        await self._api.update_params_for_auth(sent, None, ["BearerToken"], path, method, body)
        url = self._api.configuration.host + path + (f"?{urlencode(query)}" if query else "")
        answer = await self._api.call_api(method, url, sent, body, _request_timeout=self._timeout)
        async with answer.response as response:
            return _Answer(response.status, await response.read(), _seconds(response.headers.get("Retry-After")))


def resource_of(path: str) -> str:
    """The resource that a path is about, as a role names it: `loraadapters/status`. Empty for other paths."""
    parts = path.strip("/").split("/")
    below = parts[2:] if parts[0] == "api" else parts[3:] if parts[0] == "apis" else []
    if below[:1] == ["namespaces"] and len(below) > 2:
        below = below[2:]
    return "/".join(part for part in (*below[:1], *below[2:3]))


def _seconds(text: str | None) -> float | None:
    """A Retry-After in seconds; its other form, a date, would need the server's clock."""
    return float(text) if text is not None and text.isdecimal() else None


def _error(code: int, call: str, text: bytes) -> OperatorError:
    """The error that an answer means; its message is the API server's own, if it said anything."""
    try:
        status = json.loads(text)
        message, reason = str(status["message"]), status.get("reason", "")
    except (ValueError, KeyError, TypeError, AttributeError):
        message, reason = text[:500].decode(errors="replace"), "Unknown"
    if (code == 500 and not reason) or code in _REFUSALS:
        # 500 without a reason is the answer to a manifest with fields that the kind does not have.
        return RefusedError(message)
    message = f"{call}: {message}"
    match code:
        case 404:
            return NotFoundError(message)
        case 409:
            return ConflictError(message)
        case _:
            return UnavailableError(message)
