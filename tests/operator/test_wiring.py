"""kopf as the watch, against an API server in memory: what reaches the index, and that nothing is written."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio import client

from motet_operator.index import Index
from motet_operator.keys import RESOURCES, Kind, ModelKey
from motet_operator.wiring import watch
from tests.operator.factories import KEY, raw_adapter, raw_model

Raw = dict[str, Any]
GONE = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}}


class ApiServer:
    """Discovery, lists and watches; `streams` are events that a watch of a plural gets, then it hangs."""

    def __init__(self) -> None:
        self.objects: dict[str, list[Raw]] = {}
        self.streams: dict[str, list[Raw]] = {}
        self.writes: list[str] = []
        self.tokens: list[str] = []
        self.refuse_token = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        token = request.headers.get("Authorization", "")
        self.tokens.append(token)
        if token == self.refuse_token:
            return web.json_response({"kind": "Status", "code": 401}, status=401)
        if request.method != "GET":
            self.writes.append(f"{request.method} {request.path}")
            return web.json_response({}, status=403)
        kinds = [kind for kind, resource in RESOURCES.items() if resource.path(None) == request.path]
        if not kinds:
            return web.json_response(self._discovery(request.path))
        plural = RESOURCES[kinds[0]].plural
        if "watch" not in request.query:
            items = self.objects.get(plural, [])
            return web.json_response({"kind": "List", "metadata": {"resourceVersion": "10"}, "items": items})
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        for event in self.streams.pop(plural, []):
            await response.write(json.dumps(event).encode() + b"\n")
            if event is GONE:
                return response
        await asyncio.Event().wait()
        return response

    def _discovery(self, path: str) -> Raw:
        if path == "/apis":
            groups = {(found.group, found.version) for found in RESOURCES.values() if found.group}
            versions = [(name, {"groupVersion": f"{name}/{version}", "version": version}) for name, version in groups]
            return {
                "groups": [{"name": name, "versions": [entry], "preferredVersion": entry} for name, entry in versions]
            }
        if path == "/api":
            return {"versions": ["v1"]}
        # kopf begins once it has found the kinds that it can use itself.
        own = [
            {"name": "namespaces", "singularName": "namespace", "kind": "Namespace", "namespaced": False, "verbs": []}
        ]
        return {
            "resources": (own if path == "/api/v1" else [])
            + [
                {
                    "name": found.plural,
                    "singularName": found.plural.removesuffix("s"),
                    "kind": kind.value,
                    "namespaced": True,
                    "verbs": ["list", "watch", "patch"],
                }
                for kind, found in RESOURCES.items()
                if path == (f"/apis/{found.group}/{found.version}" if found.group else f"/api/{found.version}")
            ]
        }


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
    app = web.Application()
    app.add_routes([web.route("*", "/{path:.*}", server.handle)])
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    settings = client.Configuration(host=f"http://{host}:{port}")
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
    monkeypatch.setattr("motet_operator.wiring._LOGIN_AGAIN_SECONDS", 0.01)
    server = ApiServer()
    server.objects = {"loraadapters": [raw_adapter()]}
    server.refuse_token = "Bearer old"
    async with watching(server, "Bearer old", "Bearer new") as seen:
        await until(lambda: seen.woken)
    assert {"Bearer old", "Bearer new"} <= set(server.tokens)
