"""Keeps the routing state equal to the cluster: the one module that knows the Kubernetes client.

Invariant: the table in use is always one that the API server once described in full. Each kind is listed whole and then
watched from that list on; when the server no longer knows where the watch stood (410) it is listed again; when the
server does not answer, the last table stays in use and the reading is tried again, ever more slowly.
"""

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import client, config

from motet_api.names import GROUP, LORA_ADAPTER_PLURAL, MODEL_DEPLOYMENT_PLURAL, MODEL_LABEL, VERSION
from motet_gateway.errors import SourceError
from motet_gateway.kube_cache import ObjectCache
from motet_gateway.kube_objects import Kind
from motet_gateway.routing import Routing

log = logging.getLogger(__name__)

PAGE: Final = 500
LIST_SECONDS: Final = 30
WATCH_SECONDS: Final = 60
"""After which the server ends a watch and we begin the next. It bounds how long a connection that has silently died can
hide changes."""
GATHER_SECONDS: Final = 0.05
"""Events that come together (a rollout touches every slice) make one new table."""
RESUME_SECONDS: Final = 0.1
"""Between two watches, so that a server which ends each at once is not asked thousands of times a second."""
FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 30.0


class ApiServerError(Exception):
    """The API server answered with an error."""


class GoneError(ApiServerError):
    """The place where a watch stood is no longer known (410): list anew."""


@dataclass(frozen=True, slots=True)
class Resource:
    """What is listed and watched: a kind, in one namespace or (None) in all."""

    kind: Kind
    group_path: str
    plural: str
    namespace: str | None
    selector: str = ""

    def path(self) -> str:
        """The collection's path."""
        scope = f"/namespaces/{self.namespace}" if self.namespace else ""
        return f"{self.group_path}{scope}/{self.plural}"


def resources(namespaces: Sequence[str]) -> list[Resource]:
    """Everything the table is made of, in these namespaces or, if there are none, in all."""
    own = f"/apis/{GROUP}/{VERSION}"
    scopes: list[str | None] = [*namespaces] or [None]
    return [
        resource
        for namespace in scopes
        for resource in (
            Resource(Kind.MODEL_DEPLOYMENT, own, MODEL_DEPLOYMENT_PLURAL, namespace),
            Resource(Kind.LORA_ADAPTER, own, LORA_ADAPTER_PLURAL, namespace),
            Resource(Kind.ENDPOINT_SLICE, "/apis/discovery.k8s.io/v1", "endpointslices", namespace, MODEL_LABEL),
        )
    ]


async def connect(kubeconfig: str | None) -> client.ApiClient:
    """A client for the cluster of a kubeconfig file, or (None) for the one that this pod runs in.

    Raises:
        SourceError: there is no such file, or this process is not in a pod.
    """
    settings = client.Configuration()
    try:
        if kubeconfig is None:
            config.load_incluster_config(client_configuration=settings)
        else:
            await config.load_kube_config(config_file=kubeconfig, client_configuration=settings, persist_config=False)
    except config.ConfigException as error:
        raise SourceError(
            f"no cluster to follow: {error} Name one with --kubeconfig, or a file with --table"
        ) from error
    return client.ApiClient(settings)


class Reader:
    """Lists and watches one resource over the raw API: objects stay dictionaries, which the contract's types read."""

    def __init__(self, api: client.ApiClient, resource: Resource) -> None:
        self._api = api
        self._resource = resource

    async def list(self) -> tuple[list[dict[str, Any]], str]:
        """All objects, and the resource version to watch from. Raises: ApiServerError, aiohttp.ClientError."""
        objects: list[dict[str, Any]] = []
        token = ""
        while True:
            query = {"limit": str(PAGE)} | ({"continue": token} if token else {})
            response = await self._get(query, aiohttp.ClientTimeout(total=LIST_SECONDS))
            async with response:
                page = json.loads(await response.read())
            objects += page.get("items") or []
            token = page["metadata"].get("continue") or ""
            if not token:
                return objects, page["metadata"]["resourceVersion"]

    async def watch(self, version: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Events (type, object) after a resource version, until the server ends the watch.

        Raises: GoneError, ApiServerError, aiohttp.ClientError, TimeoutError.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        # The server ends it in time; a connection that has died silently is ended by us.
        response = await self._get(query, aiohttp.ClientTimeout(total=WATCH_SECONDS * 1.25, sock_connect=LIST_SECONDS))
        async with response:
            async for line in response.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise _error(event["object"].get("code", 0), event["object"].get("message", ""))
                yield event["type"], event["object"]

    async def _get(self, query: dict[str, str], within: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        if self._resource.selector:
            query = query | {"labelSelector": self._resource.selector}
        method, url, headers, *_ = await self._api.param_serialize(
            "GET",
            f"{self._resource.path()}?{urlencode(query)}",
            header_params={"Accept": "application/json"},
            auth_settings=["BearerToken"],
        )
        answer = await self._api.call_api(method, url, headers, _request_timeout=within)
        response: aiohttp.ClientResponse = answer.response
        if response.status != 200:
            async with response:
                raise _error(response.status, (await response.text())[:500])
        return response


class KubernetesSource:
    """Reads every resource and publishes a table once all of them have been listed."""

    def __init__(
        self,
        readers: Sequence[tuple[Resource, Reader]],
        routing: Routing,
        on_failure: Callable[[], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        default_namespace: str = "",
    ) -> None:
        self._readers = readers
        self._routing = routing
        self._on_failure = on_failure
        self._sleep = sleep
        self._cache = ObjectCache(default_namespace)
        self._listed: set[Resource] = set()
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Follow the cluster for as long as the gateway runs."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._publish())
            for resource, reader in self._readers:
                group.create_task(self._follow(resource, reader))

    async def _publish(self) -> NoReturn:
        while True:
            await self._changed.wait()
            await self._sleep(GATHER_SECONDS)
            self._changed.clear()
            if len(self._listed) == len(self._readers):
                self._routing.set_table(self._cache.table())

    async def _follow(self, resource: Resource, reader: Reader) -> NoReturn:
        version: str | None = None
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                if version is None:
                    version = await self._list(resource, reader)
                async for kind, obj in reader.watch(version):
                    version = obj["metadata"]["resourceVersion"]
                    self._take(resource, kind, obj)
                pause = FIRST_PAUSE_SECONDS
                await self._sleep(RESUME_SECONDS)
            except GoneError:
                version = None
                await self._sleep(RESUME_SECONDS)
            except (ApiServerError, aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                self._on_failure()
                log.warning("cannot read %s, the last table stays in use: %s", resource.path(), error or repr(error))
                await self._sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 (spreads load, keeps no secret)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def _list(self, resource: Resource, reader: Reader) -> str:
        objects, version = await reader.list()
        self._cache.replace(resource.kind, resource.namespace, objects)
        self._listed.add(resource)
        self._changed.set()
        log.info("read %d of %s", len(objects), resource.path())
        return version

    def _take(self, resource: Resource, event: str, obj: dict[str, Any]) -> None:
        match event:
            case "ADDED" | "MODIFIED":
                self._cache.put(resource.kind, obj)
            case "DELETED":
                self._cache.remove(resource.kind, obj)
            case _:
                return
        self._changed.set()


def _error(code: int, message: str) -> ApiServerError:
    return (GoneError if code == 410 else ApiServerError)(f"status {code}: {message}")
