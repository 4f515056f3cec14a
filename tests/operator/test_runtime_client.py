"""The client of runtime pods: what is no report is silence, and silence ends in time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from motet_api.identity import AdapterId
from motet_api.wire import DesiredAdapter, DesiredAdapters
from motet_operator.clients import runtime_client
from motet_operator.clients.runtime_client import RuntimeClient
from motet_operator.errors import NotLeadingError, SilentPodError
from tests.operator.factories import holds

Handler = Callable[[web.Request], Awaitable[web.Response]]
DOCUMENT = DesiredAdapters(adapters=[DesiredAdapter(id=AdapterId("voice@v1"), uri="file:///a")])


class Counter:
    """Takes down calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, bool]] = []

    def runtime_called(self, method: str, answered: bool) -> None:
        self.calls.append((method, answered))


@asynccontextmanager
async def pod(handler: Handler, counter: Counter) -> AsyncIterator[RuntimeClient]:
    app = web.Application()
    app.add_routes([web.route("*", "/motet/v1/adapters", handler)])
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with aiohttp.ClientSession() as session:
            yield RuntimeClient(session, counter, runner.addresses[0][1])
    finally:
        await runner.cleanup()


async def test_ask_and_tell() -> None:
    bodies: list[DesiredAdapters] = []

    async def answer(request: web.Request) -> web.Response:
        if request.method == "PUT":
            bodies.append(DesiredAdapters.model_validate_json(await request.read()))
        return web.json_response(holds("voice@v1").to_wire())

    counter = Counter()
    async with pod(answer, counter) as client:
        assert await client.report("127.0.0.1") == holds("voice@v1")
        assert await client.tell("127.0.0.1", DOCUMENT) == holds("voice@v1")
    assert bodies == [DOCUMENT]
    assert counter.calls == [("GET", True), ("PUT", True)]


async def test_who_may_not_act_tells_no_pod_anything() -> None:
    async with aiohttp.ClientSession() as session:
        client = RuntimeClient(session, Counter(), may_act=lambda: False)
        with pytest.raises(NotLeadingError):
            await client.tell("127.0.0.1", DOCUMENT)


async def _error(_: web.Request) -> web.Response:
    return web.Response(status=500)


async def _nonsense(_: web.Request) -> web.Response:
    return web.Response(text="hello")


async def _never(_: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.mark.parametrize("handler", [_error, _nonsense, _never])
async def test_what_is_no_report_is_silence(handler: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_client, "TIMEOUT_SECONDS", 0.05)
    counter = Counter()
    async with pod(handler, counter) as client:
        with pytest.raises(SilentPodError) as caught:
            await client.report("127.0.0.1")
    assert str(caught.value)
    assert counter.calls == [("GET", False)]


async def test_a_pod_that_is_not_there_is_silent() -> None:
    counter = Counter()
    async with aiohttp.ClientSession() as session:
        with pytest.raises(SilentPodError):
            await RuntimeClient(session, counter, 9).tell("127.0.0.1", DOCUMENT)
    assert counter.calls == [("PUT", False)]
