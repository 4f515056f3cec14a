"""kopf as the watch, against an API server in memory: what reaches the index, and that nothing is written."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from kubernetes.aio import client

from motet_operator.keys import Kind, ModelKey
from motet_operator.kube.index import Index
from motet_operator.kube.wiring import watch
from tests.operator.api_server import GONE, ApiServer
from tests.operator.factories import KEY, raw_adapter, raw_model

Raw = dict[str, Any]


class Seen:
    """What the wiring tells."""

    def __init__(self) -> None:
        self.index = Index()
        self.woken: list[ModelKey] = []
        self.requests: list[tuple[str, str]] = []

    def requested(self, verb: str, resource: str) -> None:
        self.requests.append((verb, resource))


@asynccontextmanager
async def watching(server: ApiServer, *tokens: str) -> AsyncIterator[Seen]:
    runner, address = await server.start()
    settings = client.Configuration(host=address)
    left = list(tokens) or ["Bearer first"]

    def renew(configuration: Any) -> None:
        configuration.api_key["BearerToken"] = left.pop(0) if len(left) > 1 else left[0]

    settings.refresh_api_key_hook = renew
    seen = Seen()
    task = asyncio.create_task(watch(settings, seen.index, seen.woken.append, [], asyncio.Event(), seen.requested))
    try:
        yield seen
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await runner.cleanup()


async def until(probe: Any) -> None:
    async with asyncio.timeout(10):
        while not probe():
            await asyncio.sleep(0.01)


async def test_objects_wake_their_key_and_nothing_is_written_into_them() -> None:
    """kopf's own bookkeeping would be annotations, finalizers and `status.kopf`: patches, all of them."""
    server = ApiServer()
    server.objects = {"modeldeployments": [raw_model()], "loraadapters": [raw_adapter()]}
    changed = raw_adapter("second")
    deleted = {"type": "DELETED", "object": raw_adapter()}
    server.streams["loraadapters"] = [{"type": "ADDED", "object": changed}, deleted]
    async with watching(server) as seen:
        await until(lambda: list(seen.index.of_model(KEY, Kind.LORA_ADAPTER)) == ["second"])
        await until(lambda: {resource for verb, resource in seen.requests if verb == "list"} >= {"modeldeployments"})
        assert set(seen.woken) == {KEY}
    assert server.writes == []


async def test_a_watch_whose_place_is_lost_is_listed_anew_and_said_to_be() -> None:
    server = ApiServer()
    server.objects = {"loraadapters": [raw_adapter()]}
    server.streams["loraadapters"] = [GONE]
    async with watching(server) as seen:
        await until(lambda: seen.requests.count(("list", "loraadapters")) == 2)
        await until(lambda: seen.requests.count(("watch", "loraadapters")) == 2)
    assert server.writes == []


async def test_a_token_that_is_refused_is_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("motet_operator.kube.wiring._LOGIN_AGAIN_SECONDS", 0.01)
    server = ApiServer()
    server.objects = {"loraadapters": [raw_adapter()]}
    server.refuse_token = "Bearer old"
    async with watching(server, "Bearer old", "Bearer new") as seen:
        await until(lambda: seen.woken)
    assert {"Bearer old", "Bearer new"} <= set(server.tokens)
