"""Local servers for the sources' tests: a folder served as a good web server does, and any handler at all."""

import asyncio
import hashlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from motet_operator.store.sources.contract import Credentials, Limits, Listing, SourceRef
from motet_operator.store.sources.networks import Networks
from motet_operator.store.sources.schemes import Sources, SourceSettings
from tests.operator.certificates import Pair

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
LOOPBACK = Networks.of(["127.0.0.0/8"])
LIMITS = Limits(
    max_file_bytes=4 << 20,
    max_total_bytes=8 << 20,
    max_files=32,
    connect_seconds=2,
    idle_seconds=1,
    min_bytes_per_second=1000,
    total_seconds=5,
)
CONFIG = json.dumps({"peft_type": "LORA", "r": 8}).encode()
WEIGHTS = bytes(range(256)) * 4096
GOOD: Mapping[str, bytes] = {"adapter_config.json": CONFIG, "adapter_model.safetensors": WEIGHTS}


class Names(AbstractResolver):
    """Names that the tests give addresses to, one after the other; the last one stays."""

    def __init__(self, **addresses: str) -> None:
        self.asked: list[str] = []
        self._addresses = {name.replace("_", "."): texts.split() for name, texts in addresses.items()}

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        self.asked.append(host)
        left = self._addresses.get(host)
        if not left:
            raise OSError(f"no such name: {host}")
        address = left.pop(0) if len(left) > 1 else left[0]
        return [ResolveResult(hostname=host, host=address, port=port, family=2, proto=0, flags=0)]

    async def close(self) -> None:
        pass


@dataclass
class Served:
    """A running server and the requests it saw."""

    port: int
    requests: list[web.Request]
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def paths(self) -> list[str]:
        return [request.path for request in self.requests]


@asynccontextmanager
async def served(handler: Handler, pair: Pair | None = None) -> AsyncIterator[Served]:
    """One handler for every path of a server of its own, with TLS where it has a certificate."""
    requests: list[web.Request] = []

    async def recorded(request: web.Request) -> web.StreamResponse:
        requests.append(request)
        return await handler(request)

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", recorded)
    runner = web.AppRunner(app, shutdown_timeout=0.01, access_log=None)
    await runner.setup()
    context = None
    if pair is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield Served(runner.addresses[0][1], requests, "https" if pair else "http")
    finally:
        await runner.cleanup()


@asynccontextmanager
async def raw_server(answer: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[str]:
    """A server that speaks what it wants; gives its URL."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await answer(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def folder(files: Mapping[str, bytes], prefix: str = "/") -> Handler:
    """Files as a well-behaved server gives them: HEAD, ranges, ETag, If-Match."""

    async def serve(request: web.Request) -> web.StreamResponse:
        data = files.get(request.path.removeprefix(prefix))
        if data is None:
            return web.Response(status=404)
        etag = f'"{hashlib.md5(data).hexdigest()}"'
        if request.headers.get("If-Match", etag) != etag:
            return web.Response(status=412)
        headers = {"ETag": etag, "Content-Type": "application/octet-stream"}
        start = request.http_range.start or 0
        if not start:
            return web.Response(body=data, headers=headers)
        headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return web.Response(body=data[start:], headers=headers, status=206)

    return serve


def settings(scratch: Path, **changes: object) -> SourceSettings:
    return SourceSettings(**({"scratch": scratch, "limits": LIMITS, "networks": LOOPBACK} | changes))  # type: ignore[arg-type]


async def fetch(
    sources: Sources, uri: str, into: Path, credentials: Credentials | None = None, revision: str | None = None
) -> Listing:
    """List and read everything into a folder, as the store does."""
    ref = SourceRef(uri, revision)
    source = sources.open_source(uri)
    listing = await source.list(ref, credentials or {})
    for file in listing.files:
        with (into / file.name).open("wb") as out:
            async for chunk in source.read(ref, listing, file, 0, credentials or {}):
                out.write(chunk)
    await source.release(listing)
    return listing


def content(into: Path) -> dict[str, bytes]:
    """What lies in a folder."""
    return {path.name: path.read_bytes() for path in into.iterdir() if path.is_file()}


def bytes_below(folder: Path) -> int:
    """The bytes of all files below a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
