"""A thin client of the API server: objects are dictionaries, writes are server-side apply, every call has a timeout."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, Protocol
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import client

from motet_api.names import FIELD_MANAGER
from motet_operator.errors import ConflictError, NotFoundError, OperatorError, RefusedError, UnavailableError
from motet_operator.keys import RESOURCES, Kind

TIMEOUT_SECONDS: Final = 15.0
PAGE: Final = 500
_REFUSALS: Final = frozenset({400, 403, 405, 413, 415, 422})
_METADATA_ONLY: Final = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"

Manifest = Mapping[str, Any]


class CallCounter(Protocol):
    """Counts calls of the API server."""

    def api_called(self, verb: str, code: int) -> None:
        """`code` is the HTTP status, 0 if there was no answer."""
        ...


class Cluster:
    """The API server, seen from `namespaces`, or from everywhere if there are none."""

    def __init__(self, api: client.ApiClient, counter: CallCounter, namespaces: Sequence[str] = ()) -> None:
        self._api = api
        self._counter = counter
        self._scopes: Sequence[str | None] = list(namespaces) or [None]

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
        """Write an object's status; returns the object. The manifest's uid keeps it from reaching another object.

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
        try:
            code, text = await self._request(method, path, query, headers, body)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._counter.api_called(verb, 0)
            raise UnavailableError(f"{method} {path}: {error or repr(error)}") from error
        self._counter.api_called(verb, code)
        if code >= 400:
            raise _error(code, f"{method} {path}", text)
        answer: dict[str, Any] = json.loads(text)
        return answer

    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        body: Manifest | None,
    ) -> tuple[int, bytes]:
        # Not by `param_serialize`, which walks through the body to make plain what is plain already.
        sent = {"Accept": "application/json", **(headers or {})}
        await self._api.update_params_for_auth(sent, None, ["BearerToken"], path, method, body)
        url = self._api.configuration.host + path + (f"?{urlencode(query)}" if query else "")
        within = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        answer = await self._api.call_api(method, url, sent, body, _request_timeout=within)
        async with answer.response as response:
            return response.status, await response.read()


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
