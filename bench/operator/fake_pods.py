"""The runtimes of all hollow pods in one process: they answer the operator, and load nothing.

The network namespace routes every pod's address to its loopback, so one listener gets the calls of all pods and tells
them apart by the address that was called. A version is resident a moment after the pod was told of it.
"""

import asyncio
import hashlib
import time

from aiohttp import web

from motet_api.identity import Digest
from motet_api.names import ADAPTERS_PATH, ADMIN_PORT
from motet_api.reasons import AdapterReason
from motet_api.wire import AdapterReport, AdaptersReport, DesiredAdapter, DesiredAdapters

LOAD_SECONDS = 0.2
RANK, SIZE_BYTES, MODULES = 16, 27_262_976, ["q_proj", "k_proj", "v_proj", "o_proj"]


class FakePod:
    """One pod: what it was told and since when it holds it."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._told: dict[str, tuple[DesiredAdapter, float]] | None = None
        self._settled = 0.0
        """When the last of its versions is resident."""
        self._answer: bytes | None = None
        """The answer from then on."""

    def tell(self, document: DesiredAdapters) -> None:
        """The whole set, as a runtime takes it: what is new begins to load, what is not in it is gone."""
        now, old = time.monotonic(), self._told or {}
        self._told = {
            wanted.id: old[wanted.id] if wanted.id in old and old[wanted.id][0] == wanted else (wanted, now)
            for wanted in document.adapters
        }
        self._settled = max((since + LOAD_SECONDS for _, since in self._told.values()), default=now)
        self._answer = None

    def report(self) -> bytes:
        """What it holds; the same bytes until something changes, so that the stand-in costs as little as it can."""
        now = time.monotonic()
        answer = self._answer or self._report(now).model_dump_json(by_alias=True, exclude_none=True).encode()
        if now >= self._settled:
            self._answer = answer
        return answer

    def _report(self, now: float) -> AdaptersReport:
        return AdaptersReport(
            model=self._address,
            base_loaded=True,
            desired_known=self._told is not None,
            draining=False,
            max_batch_size=32,
            adapters=[_entry(wanted, now - since) for wanted, since in (self._told or {}).values()],
        )


def _entry(wanted: DesiredAdapter, age: float) -> AdapterReport:
    if age < LOAD_SECONDS:
        return AdapterReport(id=wanted.id, reason=AdapterReason.LOADING, uri=wanted.uri, desired_digest=wanted.digest)
    return AdapterReport(
        id=wanted.id,
        reason=AdapterReason.RESIDENT,
        uri=wanted.uri,
        desired_digest=wanted.digest,
        digest=wanted.digest or Digest("sha256:" + hashlib.sha256(wanted.uri.encode()).hexdigest()),
        rank=RANK,
        size_bytes=SIZE_BYTES,
        target_modules=MODULES,
    )


def make_app() -> web.Application:
    """The admin API of every pod there may be."""
    pods: dict[str, FakePod] = {}

    def called(request: web.Request) -> FakePod:
        transport = request.transport
        assert transport is not None
        address: str = transport.get_extra_info("sockname")[0]
        return pods.setdefault(address, FakePod(address))

    async def get(request: web.Request) -> web.Response:
        return web.Response(body=called(request).report(), content_type="application/json")

    async def put(request: web.Request) -> web.Response:
        pod = called(request)
        pod.tell(DesiredAdapters.model_validate_json(await request.read()))
        return web.Response(body=pod.report(), content_type="application/json")

    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.add_routes([web.get(ADAPTERS_PATH, get), web.put(ADAPTERS_PATH, put)])
    return app


async def main() -> None:
    """Answer until ended."""
    runner = web.AppRunner(make_app(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", ADMIN_PORT, backlog=4096).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
