"""The gateway from end to end: what a pod that fails or refuses does to a request."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from motet_api.errors import ErrorCode
from motet_api.names import (
    ADAPTER_HEADER,
    ADAPTER_VERSION_HEADER,
    POD_HEADER,
)
from tests.gateway.fake_pod import FakePod, event
from tests.gateway.front_door import BOTH, Opening

pytestmark = pytest.mark.asyncio(loop_scope="module")


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
