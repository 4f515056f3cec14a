"""The part of an API server that a watcher meets: lists in pages, watches, 410, and being away."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from kubernetes.aio import client

from tests.gateway.kube_samples import Object


@dataclass
class FakeApiServer:
    """Objects by plural. `emit` sends an event to those who watch, `hang_up` ends their watches."""

    objects: dict[str, list[Object]] = field(default_factory=dict)
    page: int = 500
    away: bool = False
    gone: str = ""
    version: int = 100
    lists: Counter[str] = field(default_factory=Counter)
    watched_from: dict[str, list[str]] = field(default_factory=dict)
    watches: dict[str, list[web.StreamResponse]] = field(default_factory=dict)
    selectors: dict[str, str] = field(default_factory=dict)
    url: str = ""

    async def serve(self, request: web.Request) -> web.StreamResponse:
        if self.away:
            return web.json_response({"kind": "Status", "code": 503}, status=503)
        plural = request.path.rpartition("/")[2]
        self.selectors[plural] = request.query.get("labelSelector", "")
        return await (self._watch if "watch" in request.query else self._list)(request, plural)

    async def _list(self, request: web.Request, plural: str) -> web.Response:
        start = int(request.query.get("continue") or 0)
        found = self.objects.get(plural, [])
        end = start + self.page
        metadata = {"resourceVersion": str(self.version)} | ({"continue": str(end)} if end < len(found) else {})
        if not start:
            self.lists[plural] += 1
        return web.json_response({"metadata": metadata, "items": found[start:end]})

    async def _watch(self, request: web.Request, plural: str) -> web.StreamResponse:
        self.watched_from.setdefault(plural, []).append(request.query["resourceVersion"])
        response = web.StreamResponse(headers={"content-type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        if self.gone == plural:
            self.gone = ""
            await _write(response, {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}})
            return response
        self.watches.setdefault(plural, []).append(response)
        while response in self.watches[plural]:
            await asyncio.sleep(0.002)
        return response

    async def emit(self, plural: str, kind: str, obj: Object) -> None:
        for response in self.watches.get(plural, []):
            await _write(response, {"type": kind, "object": obj})

    def hang_up(self, plural: str) -> None:
        self.watches[plural] = []


async def _write(response: web.StreamResponse, event: Object) -> None:
    await response.write(json.dumps(event).encode() + b"\n")


@asynccontextmanager
async def running_api_server(server: FakeApiServer) -> AsyncIterator[client.ApiClient]:
    """The server on the loopback, and a client of it."""
    app = web.Application()
    app.router.add_get("/{path:.*}", server.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with client.ApiClient(client.Configuration(host="http://{}:{}".format(*runner.addresses[0][:2]))) as api:
            yield api
    finally:
        server.watches.clear()
        await runner.cleanup()
