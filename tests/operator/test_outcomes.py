"""The client of the gateways' outcomes: whom it asks, and what silence is."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from motet_api.wire import AdapterOutcome, VersionOutcome
from motet_operator.clients.outcomes import OutcomesClient
from motet_operator.errors import UnavailableError

NAME = ("speech", "voice")
OUTCOME = AdapterOutcome(namespace="speech", name="voice", versions=[VersionOutcome(version="v1", requests=3)])


class Slices:
    """The API server, as far as EndpointSlices go."""

    def __init__(self, *ports: int) -> None:
        self.items = [
            {
                "ports": [{"name": "http", "port": port}],
                "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
            }
            for port in ports
        ]
        self.fail = False
        self.lists = 0

    async def read(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        assert path == "/apis/discovery.k8s.io/v1/namespaces/motet/endpointslices"
        assert query is not None
        assert query["labelSelector"] == "kubernetes.io/service-name=gateway"
        self.lists += 1
        if self.fail:
            raise UnavailableError("timed out")
        return {"items": self.items}


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


async def gateway(status: int = 200, body: str | None = None) -> tuple[TestServer, list[str]]:
    """A gateway that answers so, and what it was asked."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path_qs)
        text = body if body is not None else OUTCOME.model_dump_json(by_alias=True)
        return web.Response(status=status, text=text, content_type="application/json")

    app = web.Application()
    app.router.add_get("/motet/v1/outcomes/{namespace}/{name}", answer)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    return server, asked


def client(slices: Slices, session: aiohttp.ClientSession, clock: list[float]) -> OutcomesClient:
    return OutcomesClient(slices, session, ("motet", "gateway"), lambda: clock[0])


async def test_every_gateway_is_asked(session: aiohttp.ClientSession) -> None:
    server, asked = await gateway()
    assert server.port is not None
    slices = Slices(server.port)
    found = await client(slices, session, [0.0]).ask(NAME, 30.4)
    assert found == (OUTCOME,)
    assert asked == ["/motet/v1/outcomes/speech/voice?seconds=30.4"]
    await server.close()


@pytest.mark.parametrize(("seconds", "sent"), [(-1, "0"), (604_801, "604800")])
async def test_a_span_has_bounds(seconds: float, sent: str, session: aiohttp.ClientSession) -> None:
    server, asked = await gateway()
    assert server.port is not None
    await client(Slices(server.port), session, [0.0]).ask(NAME, seconds)
    assert asked[0].endswith(f"?seconds={sent}")
    await server.close()


@pytest.mark.parametrize(("status", "body"), [(500, "{}"), (404, "{}"), (200, "not json"), (200, "[]")])
async def test_what_is_no_answer_is_silence(status: int, body: str, session: aiohttp.ClientSession) -> None:
    server, _ = await gateway(status, body)
    assert server.port is not None
    assert await client(Slices(server.port), session, [0.0]).ask(NAME, 5) == (None,)
    await server.close()
    assert await client(Slices(server.port), session, [0.0]).ask(NAME, 5) == (None,), "nobody listens"


async def test_no_gateway_is_no_silence(session: aiohttp.ClientSession) -> None:
    assert await client(Slices(), session, [0.0]).ask(NAME, 5) == ()


async def test_gateways_that_cannot_be_listed_are_silent(session: aiohttp.ClientSession) -> None:
    slices = Slices()
    slices.fail = True
    assert await client(slices, session, [0.0]).ask(NAME, 5) == (None,)


async def test_one_list_serves_for_a_while(session: aiohttp.ClientSession) -> None:
    slices, clock = Slices(), [0.0]
    asking = client(slices, session, clock)
    for _ in range(3):
        await asking.ask(NAME, 5)
    assert slices.lists == 1
    clock[0] = 2.0
    await asking.ask(NAME, 5)
    assert slices.lists == 2
