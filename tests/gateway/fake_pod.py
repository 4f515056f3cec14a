"""Stand-ins for runtime pods, at the edge of the gateway: real HTTP servers whose answers a test decides."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from motet_api.errors import ErrorCode, openai_error
from motet_api.identity import AdapterId
from motet_api.names import ADAPTER_HEADER, ADAPTER_VERSION_HEADER, ADAPTERS_PATH, BASE_MODEL_ALIAS
from motet_api.reasons import AdapterReason
from motet_api.wire import AdapterReport, AdaptersReport

Behaviour = Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]


@dataclass
class FakePod:
    """Says that it holds `resident`, and answers requests by `behave`. Keeps what it was asked."""

    name: str
    resident: set[str] = field(default_factory=set)
    loading: set[str] = field(default_factory=set)
    standby: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    batch: int = 4
    draining: bool = False
    address: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    running: int = 0
    left: int = 0
    """Requests whose client (the gateway) went away before they were answered."""
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    behave: Behaviour | None = None

    def __post_init__(self) -> None:
        self.resident = set(self.resident)

    async def adapters(self, _request: web.Request) -> web.Response:
        reports = [AdapterReport(id=AdapterId(name), reason=AdapterReason.RESIDENT) for name in self.resident]
        reports += [AdapterReport(id=AdapterId(name), reason=AdapterReason.LOADING) for name in self.loading]
        reports += [AdapterReport(id=AdapterId(name), reason=AdapterReason.STANDBY) for name in self.standby]
        reports += [AdapterReport(id=AdapterId(name), reason=AdapterReason.FETCH_FAILED) for name in self.failed]
        report = AdaptersReport(
            model="tiny",
            base_loaded=True,
            desired_known=True,
            draining=self.draining,
            max_batch_size=self.batch,
            adapters=reports,
        )
        return web.Response(text=report.model_dump_json(by_alias=True), content_type="application/json")

    async def serve(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else {}
        self.bodies.append(body)
        self.paths.append(request.path)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        self.running += 1
        try:
            return await (self.behave or self.echo)(request, body)
        except asyncio.CancelledError:
            self.left += 1
            raise
        finally:
            self.running -= 1

    async def echo(self, _request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        """Answer at once, with who is asked."""
        return web.json_response({"pod": self.name, "asked": asked(body)}, headers=version_headers(body))

    async def only_resident(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        """Answer for what it holds now, whatever it was last believed to hold."""
        if asked(body) in self.resident:
            return await self.echo(request, body)
        return await self.refuse(ErrorCode.ADAPTER_NOT_FOUND)(request, body)

    async def vllm(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        """Answer as vLLM does: without our headers, with the model in the body."""
        if asked(body) not in self.resident | {"tiny"}:
            error = {"message": f"The model `{asked(body)}` does not exist.", "type": "NotFoundError", "code": 404}
            return web.json_response({"error": error}, status=404)
        if not body.get("stream"):
            return web.json_response({"model": asked(body), "choices": [{"index": 0, "text": "yes"}]})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for piece in ("ye", "s"):
            chunk = {"model": asked(body), "choices": [{"index": 0, "text": piece}]}
            await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    async def hold(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        """Answer once the test says so."""
        await self.go_on.wait()
        return await self.echo(request, body)

    async def stream(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        """One event, then whatever comes after the test says so."""
        response = web.StreamResponse(headers={"content-type": "text/event-stream"} | version_headers(body))
        await response.prepare(request)
        await response.write(b'data: {"n":1}\n\n')
        await self.go_on.wait()
        await response.write(b'data: {"n":2}\n\n')
        await response.write_eof()
        return response

    async def break_off(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        """One event and a half, then the connection is cut."""
        response = web.StreamResponse(headers={"content-type": "text/event-stream"} | version_headers(body))
        await response.prepare(request)
        await response.write(b'data: {"n":1}\n\ndata: {"n"')
        await self.go_on.wait()
        assert request.transport is not None
        request.transport.abort()
        return response

    async def crash(self, request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
        """Cut the connection before a byte of an answer, and be gone for good."""
        self.resident.clear()
        self.draining = True
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    def refuse(self, code: ErrorCode) -> Behaviour:
        """Answer with an error in the OpenAI shape."""

        async def behave(_request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
            status, body = openai_error(code, f"{self.name} refuses")
            return web.Response(status=status, text=body.model_dump_json(), content_type="application/json")

        return behave


def asked(body: dict[str, Any]) -> str:
    """What a request names, in either API."""
    found: str = body.get("model") or body.get("parameters", {}).get("adapter_id", "")
    return found


def version_headers(body: dict[str, Any]) -> dict[str, str]:
    """What a pod says of the version that answered."""
    if asked(body) in {"", "tiny", BASE_MODEL_ALIAS}:
        return {}
    name, _, version = asked(body).partition("@")
    return {ADAPTER_HEADER: name, ADAPTER_VERSION_HEADER: version}


@asynccontextmanager
async def running_pod(pod: FakePod) -> AsyncIterator[FakePod]:
    """The pod, listening on a port of the loopback."""
    app = web.Application(client_max_size=1 << 26)
    app.router.add_get(ADAPTERS_PATH, pod.adapters)
    app.router.add_route("*", "/{path:.*}", pod.serve)
    # The handler is cancelled when the gateway hangs up, which is what the tests look for.
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    pod.address = "{}:{}".format(*runner.addresses[0][:2])
    try:
        yield pod
    finally:
        pod.go_on.set()
        await runner.cleanup()


def event(line: bytes) -> Any:
    """The JSON of a `data:` line."""
    return json.loads(line.removeprefix(b"data:"))
