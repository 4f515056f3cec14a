"""kopf as the watch: every event goes into the index and wakes a key. Nothing else happens in a handler.

kopf writes nothing this way: on-event handlers leave no finalizer, annotation or status behind, and its own Events are
switched off. See docs/adr/0002-kopf-wakes-keys.md.
"""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Final

import aiohttp
import kopf

from motet_operator.keys import RESOURCES, Kind, ModelKey, seen_kinds
from motet_operator.kube.cluster import resource_of
from motet_operator.kube.connection import kopf_login
from motet_operator.kube.index import Index

_LOGIN_AGAIN_SECONDS: Final = 1.0


class NoDiffs(kopf.DiffBaseStorage):
    """kopf would copy every object of every event, to find what has changed in it since; nobody here asks for that."""

    def build(self, **_: Any) -> Any:
        """What kopf would compare."""
        return {}

    def fetch(self, **_: Any) -> None:
        """What it would compare it with."""

    def store(self, **_: Any) -> None:
        """Nothing, nowhere."""


class NoProgress(kopf.ProgressStorage):
    """Event handlers have no progress to be kept in annotations."""

    def fetch(self, **_: Any) -> None:
        """None."""

    def store(self, **_: Any) -> None:
        """Nothing, nowhere."""

    def purge(self, **_: Any) -> None:
        """Nothing to remove."""

    def touch(self, **_: Any) -> None:
        """Nothing to mark."""

    def clear(self, *, essence: Any) -> Any:
        """The essence as it is: there is nothing of ours in it."""
        return essence


async def watch(
    connection: Any,
    index: Index,
    wake: Callable[[ModelKey], None],
    namespaces: Sequence[str],
    started: asyncio.Event,
    requested: Callable[[str, str], None],
) -> None:
    """Watch until SIGTERM or SIGINT. `connection` is the client's configuration; `started` is set once kopf runs.

    `requested` is told of each request that was answered: `list` or `watch`, and the resource. kopf goes on with a
    watch by itself, and lists anew where its place is lost (410).
    """
    registry = kopf.OperatorRegistry()
    _register_login(registry, connection, _tracing(requested))
    for kind in seen_kinds(namespaces):
        _register(registry, kind, index, wake)
    settings = kopf.OperatorSettings()
    settings.persistence.diffbase_storage = NoDiffs()
    settings.persistence.progress_storage = NoProgress()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.networking.request_timeout = 30
    settings.watching.server_timeout = 300
    settings.watching.connect_timeout = 10
    await kopf.operator(
        registry=registry,
        settings=settings,
        standalone=True,
        clusterwide=not namespaces,
        namespaces=list(namespaces),
        ready_flag=started,
    )


def _register_login(registry: kopf.OperatorRegistry, connection: Any, tracing: aiohttp.TraceConfig) -> None:
    logins = itertools.count()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        # Called again at once after a 401, which a token that kubelet has not renewed yet would earn again.
        if next(logins):
            await asyncio.sleep(_LOGIN_AGAIN_SECONDS)
        # kopf closes the session when it asks for the next one, and at its end.
        return kopf_login(connection, tracing)


def _tracing(requested: Callable[[str, str], None]) -> aiohttp.TraceConfig:
    tracing = aiohttp.TraceConfig()

    async def ended(_: Any, __: Any, request: aiohttp.TraceRequestEndParams) -> None:
        resource = resource_of(request.url.path)
        if resource:
            requested("watch" if "watch" in request.url.query else "list", resource)

    tracing.on_request_end.append(ended)
    return tracing


def _register(registry: kopf.OperatorRegistry, kind: Kind, index: Index, wake: Callable[[ModelKey], None]) -> None:
    resource = RESOURCES[kind]

    # No filter by label: an object that loses its label must be seen to lose it.
    @kopf.on.event(resource.group, resource.version, resource.plural, registry=registry, id=f"wake-{kind}")
    async def seen(event: kopf.RawEvent, **_: Any) -> None:
        take = index.remove if event["type"] == "DELETED" else index.put
        for key in take(kind, event["object"]):
            wake(key)
