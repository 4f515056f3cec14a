"""The gateway from end to end: what reaches the pods, what comes back, what a leaving client or a failing pod does."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from motet_api.errors import ErrorCode
from motet_api.names import (
    ADAPTER_HEADER,
    ADAPTER_VERSION_HEADER,
    MODEL_HEADER,
    POD_HEADER,
    REQUEST_ID_HEADER,
)
from tests.gateway.fake_pod import FakePod, event
from tests.gateway.front_door import FrontDoor, front_door, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

BOTH = {"churn@v1", "churn@v2"}
Opening = Callable[..., AbstractAsyncContextManager[FrontDoor]]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def opening() -> AsyncIterator[Opening]:
    """Opens gateways; at the end all of them have stopped without an error."""
    endings: list[asyncio.Task[None]] = []
    yield partial(front_door, endings=endings)
    await asyncio.gather(*endings)


async def test_routes_names_and_headers(opening: Opening, tmp_path: Path) -> None:
    async with opening(tmp_path, FakePod("a", BOTH)) as door:
        status, body, headers = await door.complete("churn@v2", x_request_id="my-id")
        assert (status, body) == (200, {"pod": "a", "asked": "churn@v2"})
        said = (MODEL_HEADER, ADAPTER_HEADER, ADAPTER_VERSION_HEADER, POD_HEADER, REQUEST_ID_HEADER)
        assert [headers[name] for name in said] == ["default/tiny", "churn", "v2", "a", "my-id"]
        assert door.pods[0].headers[-1][REQUEST_ID_HEADER] == "my-id"

        status, body, headers = await door.complete("tiny", authorization="Bearer secret", x_request_id="x" * 200)
        assert (status, body["asked"]) == (200, "tiny"), "by the name that the pod gives it, which answers repeat"
        assert ADAPTER_VERSION_HEADER not in headers
        assert len(headers[REQUEST_ID_HEADER]) == 32
        assert "authorization" not in door.pods[0].headers[-1], "credentials are not the pods' business"

        judged = {"model": "churn@v2", "input": "x", "labels": ["yes", "no"]}
        status, body, headers = await door.post("/v1/classify", judged)
        assert (status, body["asked"], headers[ADAPTER_VERSION_HEADER]) == (200, "churn@v2", "v2")
        assert door.pods[0].bodies[-1] == judged

        for path in ("/", "/generate", "/generate_stream", "/invocations"):
            sent = {"inputs": "x", "parameters": {"adapter_id": "churn@v1", "max_new_tokens": 3}}
            status, body, headers = await door.post(path, sent)
            assert (status, body["asked"], headers[ADAPTER_VERSION_HEADER]) == (200, "churn@v1", "v1")
            assert door.pods[0].bodies[-1]["parameters"]["max_new_tokens"] == 3
        status, body, _ = await door.post("/generate", {"inputs": "x"})
        assert (status, body["asked"]) == (200, "__base_model__")

        assert (await door.get("/info"))[0] == 200
        assert (await door.post("/tokenize", {"inputs": "x"}))[0] == 200
        assert door.pods[0].bodies[-1] == {"inputs": "x"}
        assert await door.get("//health") == await door.get("/health") == (200, "")
        assert await door.get("/") == (200, "")
        assert await door.counts() == (0, 0)


async def test_the_split_is_sticky_and_has_the_shares(opening: Opening, tmp_path: Path) -> None:
    async with opening(tmp_path, FakePod("a", BOTH, batch=64)) as door:

        async def version(user: str, by_field: bool = False) -> str:
            body = {"model": "churn", "prompt": "x"} | ({"user": user} if by_field else {})
            headers = {} if by_field else {"x_motet_user": user}
            return (await door.post("/v1/completions", body, **headers))[2][ADAPTER_VERSION_HEADER]

        users = [f"user-{number}" for number in range(100)]
        first = dict(zip(users, await asyncio.gather(*(version(user) for user in users)), strict=True))
        assert 1 <= Counter(first.values())["v2"] <= 22
        again = dict(zip(users, await asyncio.gather(*(version(user, by_field=True) for user in users)), strict=True))
        assert again == first
        door.pods[0].resident = {"churn@v2"}

        async def all_on_v2() -> bool:
            return {await version(user) for user in users[:10]} == {"v2"}

        await until(all_on_v2, what="the version that is left takes over")


@pytest.mark.parametrize(
    ("name", "status", "code", "said"),
    [
        ("chrun", 404, ErrorCode.ADAPTER_NOT_FOUND, "churn"),
        ("churn@v9", 404, ErrorCode.VERSION_NOT_FOUND, "v1, v2"),
        ("fresh@v1", 503, ErrorCode.ADAPTER_NOT_READY, "fresh@v1"),
        ("untouched", 503, ErrorCode.ADAPTER_NOT_READY, "untouched"),
    ],
)
async def test_errors_have_the_shape_of_the_api(
    opening: Opening, tmp_path: Path, name: str, status: int, code: ErrorCode, said: str
) -> None:
    adapters = [
        {"name": "churn", "model": "tiny", "versions": ["v1", "v2"], "traffic": [{"version": "v1", "weight": 1}]},
        {"name": "fresh", "model": "tiny", "versions": ["v1"]},
        {"name": "untouched", "model": "tiny", "versions": ["v1"], "traffic": [{"version": "v1", "weight": 0}]},
    ]
    async with opening(tmp_path, FakePod("a", BOTH), adapters=adapters) as door:
        openai = await door.complete(name)
        lorax = await door.post("/generate", {"inputs": "x", "parameters": {"adapter_id": name}})
        assert (openai[0], openai[1]["error"]["code"]) == (status, code)
        assert (lorax[0], lorax[1]["code"]) == (status, code)
        assert said in openai[1]["error"]["message"]
        assert said in lorax[1]["error"]
        assert lorax[1]["error_type"]
        assert [("retry-after" in answer[2]) for answer in (openai, lorax)] == [status == 503] * 2
        assert door.pods[0].bodies == [], "nothing was asked of the base in its place"


async def test_wrong_requests_are_json_errors(opening: Opening, tmp_path: Path) -> None:
    async with opening(tmp_path, FakePod("a", BOTH), flags=["--max-body-bytes", "1000"]) as door:
        large = {"model": "tiny", "prompt": "x" * 1000}
        merged = {"inputs": "x", "parameters": {"merged_adapters": {"ids": ["churn", "churn"], "weights": [1, 1]}}}
        found = [
            (await door.post("/v1/completions", large))[:2],
            (await door.post("/generate", [1]))[:2],
            (await door.post("/generate", {"inputs": "x", "parameters": 3}))[:2],
            (await door.post("/generate", merged))[:2],
            (await door.post("/v1/completions", {"model": 3}))[:2],
            (await door.post("/nowhere", {}))[:2],
            (await door.post("/info", {}))[:2],
        ]
        assert [status for status, _ in found] == [413, 422, 422, 422, 400, 404, 405]
        assert found[0][1]["error"]["code"] == ErrorCode.INVALID_REQUEST
        assert found[1][1]["error_type"] == "validation"
        assert found[5][1]["error"]["code"] == ErrorCode.NOT_FOUND
        assert found[6][1]["code"] == ErrorCode.METHOD_NOT_ALLOWED
        assert door.pods[0].bodies == []


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


def crash(pod: FakePod) -> Any:
    return pod.crash


def draining(pod: FakePod) -> Any:
    return pod.refuse(ErrorCode.DRAINING)


def absent(pod: FakePod) -> Any:
    return pod.refuse(ErrorCode.ADAPTER_NOT_FOUND)


def loading(pod: FakePod) -> Any:
    return pod.refuse(ErrorCode.NO_READY_POD)


@pytest.mark.parametrize(
    ("first", "cause"), [(crash, "lost"), (draining, "draining"), (absent, "absent"), (loading, "loading")]
)
async def test_another_pod_is_asked_before_the_first_byte(
    opening: Opening, tmp_path: Path, first: Any, cause: str
) -> None:
    one, two = FakePod("a", BOTH), FakePod("b", BOTH)
    one.behave = first(one)
    async with opening(tmp_path, one, two) as door:
        status, body, headers = await door.complete("churn@v1")
        assert (status, body["pod"], headers[POD_HEADER]) == (200, "b", "b")
        assert (len(one.bodies), len(two.bodies)) == (1, 1)
        assert f'motet_gateway_retries_total{{cause="{cause}",model="tiny"' in (await door.get("/metrics"))[1]


async def test_a_pod_that_always_refuses_is_not_asked_for_ever(opening: Opening, tmp_path: Path) -> None:
    pod = FakePod("a", BOTH)
    pod.behave = pod.refuse(ErrorCode.DRAINING)
    async with opening(tmp_path, pod) as door:
        status, body, _ = await door.complete("churn@v1")
        assert (status, body["error"]["code"]) == (503, ErrorCode.NO_READY_POD)
        assert len(pod.bodies) == 4


async def test_nothing_is_asked_twice_after_the_first_byte(opening: Opening, tmp_path: Path) -> None:
    one, two = FakePod("a", BOTH), FakePod("b", BOTH)
    for pod in (one, two):
        pod.behave = pod.break_off
    async with opening(tmp_path, one, two) as door:
        body = {"model": "churn@v1", "prompt": "x", "stream": True}
        async with door.client.post(door.url + "/v1/completions", json=body) as answer:
            assert event(await answer.content.readline()) == {"n": 1}
            one.go_on.set()
            two.go_on.set()
            rest = await answer.content.read()
        assert json.loads(rest.split(b"data: ")[-1])["error"]["code"] == ErrorCode.UPSTREAM_FAILED
        assert len(one.bodies) + len(two.bodies) == 1
        assert 'code="502"' in (await door.get("/metrics"))[1]


async def test_an_answer_that_is_not_a_stream_is_cut_off_with_the_pod(opening: Opening, tmp_path: Path) -> None:
    pod = FakePod("a", BOTH)

    async def half(request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
        headers = {"content-type": "application/json", ADAPTER_HEADER: "churn", ADAPTER_VERSION_HEADER: "v1"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        await response.write(b'{"half":')
        await pod.go_on.wait()
        assert request.transport is not None
        request.transport.abort()
        return response

    pod.behave = half
    async with opening(tmp_path, pod) as door:
        answer = await door.client.post(door.url + "/v1/completions", json={"model": "churn@v1"})
        assert await answer.content.readany() == b'{"half":'
        pod.go_on.set()
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


@pytest.mark.parametrize("answered_by", [{}, {ADAPTER_HEADER: "churn", ADAPTER_VERSION_HEADER: "v2"}])
async def test_an_answer_of_another_version_is_refused(
    opening: Opening, tmp_path: Path, answered_by: dict[str, str]
) -> None:
    pod = FakePod("a", BOTH)

    async def wrong(_request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
        return web.json_response({"text": "from somebody else"}, headers=answered_by)

    pod.behave = wrong
    async with opening(tmp_path, pod) as door:
        status, body, _ = await door.complete("churn@v1")
        assert (status, body["error"]["code"]) == (502, ErrorCode.UPSTREAM_FAILED)
        assert "churn@v1" in body["error"]["message"]


async def test_a_pods_own_errors_are_passed_on(opening: Opening, tmp_path: Path) -> None:
    pod = FakePod("a", BOTH)
    pod.behave = pod.refuse(ErrorCode.INVALID_REQUEST)
    async with opening(tmp_path, pod) as door:
        status, body, headers = await door.complete("churn@v1")
        assert (status, body["error"]["message"], headers[POD_HEADER]) == (400, "a refuses", "a")
        assert len(pod.bodies) == 1


async def test_the_list_of_models(opening: Opening, tmp_path: Path) -> None:
    async with opening(tmp_path, FakePod("a", {"churn@v1"})) as door:
        listed = json.loads((await door.get("/v1/models"))[1])
        assert {entry["id"]: (entry["parent"], entry["ready"]) for entry in listed["data"]} == {
            "tiny": (None, True),
            "churn": ("tiny", True),
            "churn@v1": ("churn", True),
            "churn@v2": ("churn", False),
        }
        assert listed["object"] == "list"
        assert json.loads((await door.get("/v1/models/churn@v1"))[1])["id"] == "churn@v1"
        status, text = await door.get("/v1/models/churn@v7")
        assert (status, json.loads(text)["error"]["code"]) == (404, ErrorCode.MODEL_NOT_FOUND)


async def test_requests_are_counted_by_names_that_exist(opening: Opening, tmp_path: Path) -> None:
    async with opening(tmp_path, FakePod("a", BOTH)) as door:
        await door.complete("churn@v1")
        await door.complete("made-up-name")
        _, metrics = await door.get("/metrics")
        counted = [line for line in metrics.splitlines() if line.startswith("motet_gateway_requests_total")]
        rest = 'model="tiny",namespace="default",version="v1"'
        assert sorted(counted) == [
            'motet_gateway_requests_total{adapter="",code="404",model="",namespace="",version=""} 1.0',
            f'motet_gateway_requests_total{{adapter="churn",code="200",{rest}}} 1.0',
        ]
        assert "made-up-name" not in metrics
        labels = f'adapter="churn",{rest}'
        for name in ("request_seconds", "first_byte_seconds"):
            assert f"motet_gateway_{name}_count{{{labels}}} 1.0" in metrics


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


async def test_what_is_no_http_is_an_upstream_failure(opening: Opening, tmp_path: Path) -> None:
    pod = FakePod("a", BOTH)

    async def babble(request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
        assert isinstance(request.transport, asyncio.Transport)
        request.transport.write(b"hello there\r\n\r\n")
        request.transport.close()
        return web.Response()

    pod.behave = babble
    async with opening(tmp_path, pod) as door:
        status, body, _ = await door.complete("churn@v1")
        assert (status, body["error"]["code"]) == (502, ErrorCode.UPSTREAM_FAILED)


async def test_probes_and_lists_are_not_counted_as_requests(opening: Opening, tmp_path: Path) -> None:
    async with opening(tmp_path, FakePod("a", BOTH)) as door:
        for path in ("/", "/health", "/ping", "/livez", "/readyz", "/v1/models", "/motet/v1/demand"):
            assert (await door.get(path))[0] == 200
        _, metrics = await door.get("/metrics")
        assert "motet_gateway_requests_total{" not in metrics
