"""A store on loopback: serves folders as artifacts, and misbehaves when it is told to."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from aiohttp import web

from motet_api.identity import Digest, files_digest
from motet_api.names import ARTIFACTS_PATH, BLOBS_PATH
from motet_api.store import ArtifactFile, ArtifactKind, ArtifactManifest


class FakeStore:
    """What the store serves. `asked` is every request for a blob, with the first byte that it wanted.

    `cuts` maps a blob to how many bytes of it a connection brings before it breaks, `status` is that of manifests,
    `ranges` whether a part can be asked for, and `hold` is what blobs wait for.
    """

    def __init__(self) -> None:
        self.url = ""
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[Digest, Any] = {}
        self.asked: list[tuple[str, int]] = []
        self.cuts: dict[str, int] = {}
        self.status = 200
        self.ranges = True
        self.hold: asyncio.Event | None = None

    def add(self, files: dict[str, bytes], kind: ArtifactKind = ArtifactKind.ADAPTER) -> Digest:
        """Put an artifact there."""
        listed = [
            ArtifactFile(name=name, sha256=hashlib.sha256(data).hexdigest(), size=len(data))
            for name, data in files.items()
        ]
        digest = files_digest({file.name: file.sha256 for file in listed})
        self.manifests[digest] = ArtifactManifest(digest=digest, kind=kind, files=listed).to_wire()
        self.blobs |= {file.sha256: files[file.name] for file in listed}
        return digest

    def add_folder(self, folder: Path, kind: ArtifactKind = ArtifactKind.ADAPTER) -> Digest:
        """Put a folder's safetensors and JSON files there."""
        files = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".json", ".safetensors")}
        return self.add(files, kind)

    async def manifest(self, request: web.Request) -> web.Response:
        """`GET /motet/v1/artifacts/{digest}`."""
        if self.status != 200:
            return web.Response(status=self.status, headers={"Location": "http://127.0.0.1:1/"})
        found = self.manifests.get(Digest(request.match_info["digest"]))
        if found is None:
            return web.Response(status=404)
        return web.Response(body=found) if isinstance(found, bytes) else web.json_response(found)

    async def blob(self, request: web.Request) -> web.StreamResponse:
        """`GET /motet/v1/blobs/{sha256}`."""
        sha256 = request.match_info["sha256"]
        data = self.blobs[sha256]
        begin = (request.http_range.start or 0) if self.ranges else 0
        self.asked.append((sha256, begin))
        if self.hold is not None:
            await self.hold.wait()
        answer = web.StreamResponse(status=206 if begin else 200)
        answer.content_length = len(data) - begin
        if begin:
            answer.headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        await answer.prepare(request)
        cut = self.cuts.get(sha256, len(data))
        await answer.write(data[begin : begin + cut])
        if begin + cut < len(data):
            assert request.transport is not None
            request.transport.close()
        return answer


@asynccontextmanager
async def serving(store: FakeStore) -> AsyncIterator[FakeStore]:
    """The store, answering in this event loop; its address is `url`."""
    app = web.Application()
    app.router.add_get(f"{ARTIFACTS_PATH}/{{digest}}", store.manifest)
    app.router.add_get(f"{BLOBS_PATH}/{{sha256}}", store.blob)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    store.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield store
    finally:
        await runner.cleanup()


@contextmanager
def store_thread() -> Iterator[tuple[FakeStore, Callable[[Callable[[], None]], None]]]:
    """The store in a thread of its own, for tests that wait for processes; and what calls something in its loop."""
    store, started = FakeStore(), Event()
    loop = asyncio.new_event_loop()
    ending: list[asyncio.Event] = []

    async def serve() -> None:
        async with serving(store):
            ending.append(asyncio.Event())
            started.set()
            await ending[0].wait()

    thread = Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert started.wait(10)
    try:
        yield store, lambda call: loop.call_soon_threadsafe(call) and None
    finally:
        loop.call_soon_threadsafe(ending[0].set)
        thread.join()
        loop.close()
