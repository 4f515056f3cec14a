"""The gateway from end to end: what is counted of versions, and what is not."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from motet_api.errors import ErrorCode
from tests.gateway.fake_pod import FakePod, version_headers
from tests.gateway.front_door import BOTH, Opening

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_answers_and_failures_are_counted_by_version(opening: Opening, tmp_path: Path) -> None:
    pod = FakePod("a", BOTH)
    async with opening(tmp_path, pod) as door:
        await door.complete("churn@v1")
        for code in (ErrorCode.GENERATION_FAILED, ErrorCode.INTERNAL, ErrorCode.INVALID_REQUEST, ErrorCode.OVERLOADED):
            pod.behave = pod.refuse(code)
            await door.complete("churn@v2")
        pod.behave = None
        report = await door.outcomes()
        found = {each.version: (each.requests, each.errors, sum(each.latency)) for each in report.versions}
        assert found == {"v1": (1, 0, 1), "v2": (2, 2, 2)}
        assert [(each.version, each.weight) for each in report.following or ()] == [("v1", 90), ("v2", 10)]
        assert "motet_gateway_requests_total{" in (await door.get("/metrics"))[1]


async def failing_stream(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream"} | version_headers(body))
    await response.prepare(request)
    await response.write(b'data: {"choices":[{"text":"x"}]}\n\n')
    await response.write(b'data: {"error":{"message":"m","type":"server_error","code":"generation_failed"}}\n\n')
    await response.write_eof()
    return response


async def wrong_version(_request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
    return web.json_response({})


@pytest.mark.parametrize("behave", ["break_off", failing_stream, wrong_version])
async def test_a_failure_after_the_status_is_one(opening: Opening, tmp_path: Path, behave: Any) -> None:
    pod = FakePod("a", BOTH)
    pod.behave = pod.break_off if behave == "break_off" else behave
    pod.go_on.set()
    async with opening(tmp_path, pod) as door:
        async with door.client.post(door.url + "/v1/completions", json={"model": "churn@v1", "stream": True}) as answer:
            await answer.read()
        await door.until_outcome("v1", requests=1, errors=1, in_flight=0)


async def test_requests_are_in_flight_from_the_queue_on_and_those_given_up_are_not_counted(
    opening: Opening, tmp_path: Path
) -> None:
    pod = FakePod("a", BOTH, batch=1)
    pod.behave = pod.hold
    async with opening(tmp_path, pod) as door:
        first, second = (asyncio.create_task(door.complete("churn@v1")) for _ in range(2))
        await door.until_counts(1, 1)
        await door.until_outcome("v1", in_flight=2, requests=0)
        second.cancel()
        await door.until_outcome("v1", in_flight=1)
        pod.go_on.set()
        await first
        await door.until_outcome("v1", in_flight=0, requests=1, errors=0)


async def test_questions_that_are_wrong(opening: Opening, tmp_path: Path) -> None:
    async with opening(tmp_path, FakePod("a", BOTH)) as door:
        unknown = await door.outcomes("default/never-seen")
        assert (unknown.following, unknown.versions) == (None, [])
        for query in ("", "?seconds=-1", "?seconds=604801", "?seconds=nan", "?seconds=abc"):
            status, text = await door.get(f"/motet/v1/outcomes/default/churn{query}")
            assert (status, json.loads(text)["error"]["param"]) == (400, "seconds")
        assert "motet_gateway_requests_total{" not in (await door.get("/metrics"))[1]
