"""The poller of gateways, against gateways that answer and such that do not."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from motet_api.wire import Demand, ModelDemand
from motet_operator.errors import UnavailableError
from motet_operator.metrics_api import gateways
from motet_operator.metrics_api.demand import DemandBook
from motet_operator.metrics_api.gateways import DemandPoller
from tests.operator.factories import MODEL, NAMESPACE, NOW


class Slices:
    """EndpointSlices with one gateway."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.fail = False
        self.asked: list[tuple[str, Mapping[str, str] | None]] = []

    async def read(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        self.asked.append((path, query))
        if self.fail:
            raise UnavailableError("timed out")
        ports = [{"name": "http", "port": self.port}]
        return {"items": [{"ports": ports, "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}]}]}


class GatewayPod:
    """Answers with a demand, or with what it is told to."""

    def __init__(self) -> None:
        self.status = 200
        self.hang = False
        self.waiting = 3

    async def handle(self, _: web.Request) -> web.Response:
        if self.hang:
            await asyncio.Event().wait()
        model = ModelDemand(namespace=NAMESPACE, name=MODEL, waiting=self.waiting, running=0)
        return web.json_response(Demand(at=0.0, models=[model]).to_wire(), status=self.status)


class Scene:
    """A poller, its book, its cluster and a gateway; the clock moves when told."""

    def __init__(self, session: aiohttp.ClientSession, pod: GatewayPod, port: int) -> None:
        self.now = NOW
        self.pod = pod
        self.slices = Slices(port)
        self.book = DemandBook(10)
        service = ("motet-system", "motet-gateway")
        self.poller = DemandPoller(self.slices, session, service, self.book, lambda: self.now, asyncio.sleep)

    def value(self) -> int | None:
        reading = self.book.reading(NAMESPACE, MODEL, self.now)
        return reading.value if reading is not None else None


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    pod = GatewayPod()
    app = web.Application()
    app.add_routes([web.get("/motet/v1/demand", pod.handle)])
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with aiohttp.ClientSession() as session:
            yield Scene(session, pod, runner.addresses[0][1])
    finally:
        await runner.cleanup()


async def test_a_round_fills_the_book() -> None:
    async with scene() as world:
        assert world.value() is None
        await world.poller.poll()
        assert world.value() == 3
        ((path, query),) = world.slices.asked
    assert path == "/apis/discovery.k8s.io/v1/namespaces/motet-system/endpointslices"
    assert query is not None
    assert query["labelSelector"] == "kubernetes.io/service-name=motet-gateway"


@pytest.mark.parametrize("fault", ["error", "silence", "no list"])
async def test_what_fails_makes_the_number_old_and_then_unknown(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateways, "TIMEOUT_SECONDS", 0.05)
    async with scene() as world:
        await world.poller.poll()
        world.pod.status = 500 if fault == "error" else 200
        world.pod.hang = fault == "silence"
        world.slices.fail = fault == "no list"
        world.now += timedelta(seconds=6)
        await world.poller.poll()
        assert world.value() == 3
        world.now += timedelta(seconds=6)
        await world.poller.poll()
        assert world.value() is None
        world.pod.status, world.pod.hang, world.slices.fail = 200, False, False
        await world.poller.poll()
        assert world.value() == 3
