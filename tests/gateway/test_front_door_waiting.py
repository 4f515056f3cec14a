"""The gateway from end to end: streams, queues, clients that leave and a gateway that stops."""

import asyncio
from pathlib import Path

import aiohttp
import pytest

from motet_api.errors import ErrorCode
from tests.gateway.fake_pod import FakePod, event
from tests.gateway.front_door import BOTH, Opening, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_stream_arrives_piece_by_piece(opening: Opening, tmp_path: Path) -> None:
    pod = FakePod("a", BOTH)
    pod.behave = pod.stream
    async with opening(tmp_path, pod) as door:
        body = {"model": "churn@v1", "prompt": "x", "stream": True}
        async with door.client.post(door.url + "/v1/completions", json=body) as answer:
            assert answer.headers["content-type"] == "text/event-stream"
            assert event(await answer.content.readline()) == {"n": 1}
            await door.until_counts(0, 1)
            pod.go_on.set()
            assert await answer.content.readline() == b"\n"
            assert event(await answer.content.readline()) == {"n": 2}
        await door.until_counts(0, 0)


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_client_that_leaves_ends_the_request_at_the_pod(
    opening: Opening, tmp_path: Path, streaming: bool
) -> None:
    pod = FakePod("a", BOTH)
    pod.behave = pod.stream if streaming else pod.hold
    async with opening(tmp_path, pod) as door:
        async with aiohttp.ClientSession() as leaving:
            request = asyncio.create_task(leaving.post(door.url + "/v1/completions", json={"model": "churn@v1"}))
            await door.until_counts(0, 1)
            if streaming:
                answer = await request
                await answer.content.readline()
                answer.close()
            else:
                request.cancel()

        async def cancelled() -> bool:
            return pod.left == 1

        await until(cancelled, what="the pod's request cancelled")
        await door.until_counts(0, 0)
        _, metrics = await door.get("/metrics")
        assert 'adapter="churn",code="499"' in metrics


async def test_a_client_that_leaves_the_queue_is_gone(opening: Opening, tmp_path: Path) -> None:
    pod = FakePod("a", BOTH, batch=1)
    pod.behave = pod.hold
    async with opening(tmp_path, pod) as door:
        first = asyncio.create_task(door.complete("churn@v1"))
        await door.until_counts(0, 1)
        second = asyncio.create_task(door.complete("churn@v1"))
        await door.until_counts(1, 1)
        second.cancel()
        await door.until_counts(0, 1)
        pod.go_on.set()
        assert (await first)[0] == 200
        assert len(pod.bodies) == 1


async def test_the_queue_is_bounded_in_length_and_time(opening: Opening, tmp_path: Path) -> None:
    pod = FakePod("a", BOTH, batch=1)
    pod.behave = pod.hold
    async with opening(tmp_path, pod, queue={"maxRequests": 1, "maxWaitSeconds": 1}) as door:
        running = asyncio.create_task(door.complete("churn@v1"))
        await door.until_counts(0, 1)
        waiting = asyncio.create_task(door.complete("churn@v1"))
        await door.until_counts(1, 1)
        status, body, headers = await door.complete("churn@v1")
        assert (status, body["error"]["code"], headers["retry-after"]) == (429, ErrorCode.OVERLOADED, "2")
        status, body, headers = await waiting
        assert (status, body["error"]["code"]) == (503, ErrorCode.NO_READY_POD)
        assert "retry-after" in headers
        pod.go_on.set()
        assert (await running)[0] == 200


async def test_stopping_lets_requests_end(opening: Opening, tmp_path: Path) -> None:
    pod = FakePod("a", BOTH)
    pod.behave = pod.hold
    async with opening(tmp_path, pod, flags=["--grace", "0.3", "--finish", "20"]) as door:
        assert (await door.get("/readyz"))[0] == 200
        request = asyncio.create_task(door.complete("churn@v1"))
        await door.until_counts(0, 1)
        door.stop.set()

        async def not_ready() -> bool:
            return (await door.get("/readyz"))[0] == 503

        await until(not_ready, what="not ready any more")
        assert (await door.get("/livez"))[0] == 200

        async def closed() -> bool:
            try:
                await door.client.get(door.url + "/livez", headers={"connection": "close"})
            except aiohttp.ClientConnectionError:
                return True
            return False

        await until(closed, what="the port closed")
        pod.go_on.set()
        assert (await request)[0] == 200
        await door.served
