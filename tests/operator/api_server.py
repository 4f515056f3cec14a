"""An API server in memory, as far as kopf, lists and one Lease need one."""

import asyncio
import json
from typing import Any

from aiohttp import web

from motet_operator.keys import RESOURCES

Raw = dict[str, Any]
LEASES = "/apis/coordination.k8s.io/v1/"
GONE = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}}


class ApiServer:
    """Discovery, lists and watches; `streams` are events that a watch of a plural gets, then it hangs."""

    def __init__(self) -> None:
        self.objects: dict[str, list[Raw]] = {}
        self.streams: dict[str, list[Raw]] = {}
        self.open: dict[str, asyncio.Queue[Raw]] = {}
        self.writes: list[str] = []
        self.tokens: list[str] = []
        self.refuse_token = ""
        self.lease: Raw | None = None
        self.holders: list[str] = []

    async def start(self) -> tuple[web.AppRunner, str]:
        """Serve; returns the runner, to be cleaned up, and the address."""
        app = web.Application()
        app.add_routes([web.route("*", "/{path:.*}", self.handle)])
        runner = web.AppRunner(app, shutdown_timeout=0.01)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        return runner, f"http://{host}:{port}"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        token = request.headers.get("Authorization", "")
        self.tokens.append(token)
        if self.refuse_token and token == self.refuse_token:
            return web.json_response({"kind": "Status", "code": 401}, status=401)
        if request.path.startswith(LEASES):
            return await self._lease(request)
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
        queue = self.open.setdefault(plural, asyncio.Queue())
        while True:
            await response.write(json.dumps(await queue.get()).encode() + b"\n")

    async def send(self, plural: str, event: Raw) -> None:
        """An event for the watch of a plural, now or as soon as there is one."""
        await self.open.setdefault(plural, asyncio.Queue()).put(event)

    async def _lease(self, request: web.Request) -> web.Response:
        """The one Lease, with the API server's check of versions."""
        old = self.lease
        if request.method == "GET":
            return web.json_response(old or {"code": 404}, status=200 if old else 404)
        body = await request.json()
        stale = old is not None and body["metadata"].get("resourceVersion") != old["metadata"]["resourceVersion"]
        if stale:
            return web.json_response({"message": "changed"}, status=409)
        self.holders.append(body["spec"]["holderIdentity"])
        self.lease = body | {"metadata": body["metadata"] | {"resourceVersion": str(len(self.holders))}}
        return web.json_response(self.lease)

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
