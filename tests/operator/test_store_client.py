"""The client of the adapter store: what is no answer is silence, and silence ends in time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from motet_api.store import ArtifactReport, ArtifactRequest, ArtifactsAnswer, ArtifactsQuery, ArtifactState, References
from motet_api.wire import BaseDescription
from motet_operator.clients import store_client
from motet_operator.clients.store_client import StoreClient
from motet_operator.errors import SilentStoreError
from tests.operator.factories import DIGEST

Handler = Callable[[web.Request], Awaitable[web.Response]]
QUERY = ArtifactsQuery(artifacts=[ArtifactRequest(namespace="speech", uri="hf://org/name")])
ANSWER = ArtifactsAnswer(artifacts=[ArtifactReport(state=ArtifactState.RESOLVING)])
BASE = BaseDescription(model="llama", hidden_size=8, dtype_bytes=4, modules={"q_proj": (8, 8)})


@asynccontextmanager
async def store(handler: Handler) -> AsyncIterator[StoreClient]:
    app = web.Application()
    app.add_routes([web.route("*", "/{path:.*}", handler)])
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with aiohttp.ClientSession() as session:
            yield StoreClient(session, f"http://127.0.0.1:{runner.addresses[0][1]}")
    finally:
        await runner.cleanup()


async def test_calls() -> None:
    calls: list[tuple[str, str, bytes]] = []

    async def answer(request: web.Request) -> web.Response:
        calls.append((request.method, request.path, await request.read()))
        return web.json_response(ANSWER.to_wire())

    references = References(digests=[DIGEST])
    async with store(answer) as client:
        assert await client.query(QUERY) == ANSWER
        await client.put_base(BASE.digest(), BASE)
        await client.put_references(references)
    (asked, base, kept) = calls
    assert (asked[:2], ArtifactsQuery.model_validate_json(asked[2])) == (("POST", "/motet/v1/artifacts"), QUERY)
    assert base[:2] == ("PUT", f"/motet/v1/bases/{BASE.digest()}")
    assert BaseDescription.model_validate_json(base[2]) == BASE
    assert (kept[:2], References.model_validate_json(kept[2])) == (("PUT", "/motet/v1/references"), references)


async def _error(_: web.Request) -> web.Response:
    return web.Response(status=500)


async def _nonsense(_: web.Request) -> web.Response:
    return web.Response(text="hello")


async def _too_few(_: web.Request) -> web.Response:
    return web.json_response({"artifacts": []})


async def _never(_: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.mark.parametrize("handler", [_error, _nonsense, _too_few, _never])
async def test_what_is_no_answer_is_silence(handler: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_client, "TIMEOUT_SECONDS", 0.05)
    async with store(handler) as client:
        with pytest.raises(SilentStoreError) as caught:
            await client.query(QUERY)
    assert str(caught.value)


async def test_a_store_that_is_not_there_is_silent() -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(SilentStoreError, match="cannot connect"):
            await StoreClient(session, "http://127.0.0.1:9").put_references(References(digests=[]))
