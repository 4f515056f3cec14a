"""kopf as the watch: every event goes into the index and wakes a key. Nothing else happens in a handler.

kopf writes nothing this way: on-event handlers leave no finalizer, annotation or status behind, and its own Events are
switched off. See docs/adr/0002-kopf-wakes-keys.md.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import kopf

from motet_operator.connection import kopf_login
from motet_operator.index import Index
from motet_operator.keys import RESOURCES, Kind, ModelKey


async def watch(
    connection: Any,
    index: Index,
    wake: Callable[[ModelKey], None],
    namespaces: Sequence[str],
    started: asyncio.Event,
) -> None:
    """Watch until SIGTERM or SIGINT. `connection` is the client's configuration; `started` is set once kopf runs."""
    registry = kopf.OperatorRegistry()
    _register_login(registry, connection)
    for kind in Kind:
        _register(registry, kind, index, wake)
    settings = kopf.OperatorSettings()
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


def _register_login(registry: kopf.OperatorRegistry, connection: Any) -> None:
    @kopf.on.login(registry=registry)
    def login(**_: Any) -> kopf.ConnectionInfo:
        return kopf_login(connection)


def _register(registry: kopf.OperatorRegistry, kind: Kind, index: Index, wake: Callable[[ModelKey], None]) -> None:
    resource = RESOURCES[kind]

    # No filter by label: an object that loses its label must be seen to lose it.
    @kopf.on.event(resource.group, resource.version, resource.plural, registry=registry, id=f"wake-{kind}")
    async def seen(event: kopf.RawEvent, **_: Any) -> None:
        take = index.remove if event["type"] == "DELETED" else index.put
        for key in take(kind, event["object"]):
            wake(key)
