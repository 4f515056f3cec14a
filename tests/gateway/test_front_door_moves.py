"""The gateway from end to end: versions that leave, load on demand, or sit on other models and engines."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from motet_api.errors import ErrorCode
from motet_api.names import ADAPTER_HEADER, ADAPTER_VERSION_HEADER
from tests.gateway.fake_pod import FakePod, event
from tests.gateway.front_door import BOTH, Opening, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("api", ["openai", "lorax"])
async def test_a_version_that_has_just_left_is_chosen_again(opening: Opening, tmp_path: Path, api: str) -> None:
    pods = FakePod("a", BOTH), FakePod("b", BOTH)
    async with opening(tmp_path, *pods) as door:
        for pod in pods:
            pod.behave = pod.only_resident
            # The gateway goes on believing for up to a second that v1 is here, too.
            pod.resident = {"churn@v2"}
        if api == "openai":
            asking = [door.complete("churn") for _ in range(6)]
        else:
            body = {"inputs": "x", "parameters": {"adapter_id": "churn", "seed": 1}}
            asking = [door.post("/generate", body) for _ in range(6)]
        for status, said, headers in await asyncio.gather(*asking):
            assert (status, said["asked"], headers[ADAPTER_VERSION_HEADER]) == (200, "churn@v2", "v2")
        await door.until_outcome("v1", in_flight=0, requests=0, errors=0)
        await door.until_outcome("v2", in_flight=0, requests=6)


async def test_a_version_that_the_client_names_is_not_replaced(opening: Opening, tmp_path: Path) -> None:
    pod = FakePod("a", BOTH)
    async with opening(tmp_path, pod) as door:
        pod.behave = pod.only_resident
        pod.resident = {"churn@v2"}
        status, body, _ = await door.complete("churn@v1")
        assert (status, body["error"]["code"]) == (503, ErrorCode.ADAPTER_NOT_READY)


async def test_requests_that_wait_for_a_version_that_leaves_go_on_with_another(
    opening: Opening, tmp_path: Path
) -> None:
    pod = FakePod("a", {"churn@v1"}, batch=1)
    pod.behave = pod.hold
    churn = {"name": "churn", "model": "tiny", "versions": ["v1", "v2"], "traffic": [{"version": "v1", "weight": 1}]}
    async with opening(tmp_path, pod, adapters=[churn]) as door:
        running = asyncio.create_task(door.complete("churn@v1"))
        await door.until_counts(0, 1)
        waiting = asyncio.create_task(door.complete("churn"))
        await door.until_counts(1, 1)
        door.rewrite(tmp_path, traffic=[{"version": "v2", "weight": 1}])

        async def followed() -> bool:
            return [each.version for each in (await door.outcomes()).following or ()] == ["v2"]

        await until(followed)
        await door.until_outcome("v1", in_flight=2)
        pod.resident = {"churn@v2"}
        await door.until_outcome("v2", in_flight=1)
        pod.go_on.set()
        assert (await running)[0] == 200
        assert (await waiting)[2][ADAPTER_VERSION_HEADER] == "v2"


async def test_a_version_on_demand_is_asked_for_on_one_pod(opening: Opening, tmp_path: Path) -> None:
    pods = [FakePod(name, standby={"churn@v1"}, batch=8) for name in "abc"]
    churn = {"name": "churn", "model": "tiny", "versions": ["v1"], "residency": "OnDemand"}
    async with opening(tmp_path, *pods, adapters=[churn]) as door:
        answers = await asyncio.gather(*(door.complete("churn") for _ in range(5)))
        assert {status for status, _, _ in answers} == {200}
        assert sorted(len(pod.bodies) for pod in pods) == [0, 0, 5]


async def test_a_version_on_demand_that_failed_is_tried_again_by_a_request(opening: Opening, tmp_path: Path) -> None:
    pod = FakePod("a", failed={"churn@v1"})
    pod.behave = pod.refuse(ErrorCode.ADAPTER_NOT_READY)
    churn = {"name": "churn", "model": "tiny", "versions": ["v1"], "residency": "OnDemand"}
    async with opening(tmp_path, pod, adapters=[churn]) as door:
        status, body, headers = await door.complete("churn")
        assert (status, body["error"]["code"]) == (503, ErrorCode.ADAPTER_NOT_READY)
        assert body["error"]["message"] == "pod a does not hold churn@v1: a refuses"
        assert "retry-after" in headers
        assert len(pod.bodies) == 1
        pod.behave = None
        assert (await door.complete("churn"))[0] == 200, "the pod was not doubted for what it had said itself"


async def test_an_adapter_of_another_namespace(opening: Opening, tmp_path: Path) -> None:
    pod = FakePod("a", {"team/churn@v1"})
    churn = {"name": "churn", "namespace": "team", "model": "tiny", "modelNamespace": "default", "versions": ["v1"]}
    async with opening(tmp_path, pod, adapters=[churn]) as door:
        for name in ("churn", "team/churn@v1"):
            status, body, headers = await door.complete(name)
            assert (status, body["asked"]) == (200, "team/churn@v1")
            assert (headers[ADAPTER_HEADER], headers[ADAPTER_VERSION_HEADER]) == ("team/churn", "v1")

        async def as_its_namesake(_request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
            return web.json_response({}, headers={ADAPTER_HEADER: "churn", ADAPTER_VERSION_HEADER: "v1"})

        pod.behave = as_its_namesake
        status, body, _ = await door.complete("churn")
        assert (status, body["error"]["code"]) == (502, ErrorCode.UPSTREAM_FAILED)


async def test_pods_of_vllm(opening: Opening, tmp_path: Path) -> None:
    pod, agent = FakePod("a", BOTH), FakePod("a", BOTH)
    pod.behave = pod.vllm
    async with opening(tmp_path, pod, agents=[agent]) as door:
        status, body, headers = await door.complete("churn@v1")
        assert (status, body["model"], headers[ADAPTER_VERSION_HEADER]) == (200, "churn@v1", "v1")
        assert (await door.complete("tiny"))[1]["model"] == "tiny"
        asked = {"model": "churn@v1", "prompt": "x", "stream": True}
        async with door.client.post(door.url + "/v1/completions", json=asked) as answer:
            assert event(await answer.content.readline())["model"] == "churn@v1"
            assert (await answer.read()).endswith(b"data: [DONE]\n\n")
        await door.until_outcome("v1", requests=2, errors=0)

        generate = await door.post("/generate", {"inputs": "x", "parameters": {"adapter_id": "churn@v1"}})
        classify = await door.post("/v1/classify", {"model": "churn@v1", "input": "x"})
        assert (generate[0], classify[0]) == (422, 400)
        assert "default/tiny has spec.engine.type VLLM" in generate[1]["error"]
        assert "default/tiny has spec.engine.type VLLM" in classify[1]["error"]["message"]
        assert len(pod.bodies) == 3, "nothing of these was sent"


async def test_an_answer_of_vllm_from_another_model_is_refused(opening: Opening, tmp_path: Path) -> None:
    pod, agent = FakePod("a", BOTH), FakePod("a", BOTH)

    async def base(_request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
        return web.json_response({"model": "tiny", "choices": []})

    pod.behave = base
    async with opening(tmp_path, pod, agents=[agent]) as door:
        status, body, _ = await door.complete("churn@v1")
        assert (status, body["error"]["code"]) == (502, ErrorCode.UPSTREAM_FAILED)
        assert "the base model" in body["error"]["message"]


async def test_a_version_that_vllm_does_not_have_is_asked_of_another_pod(opening: Opening, tmp_path: Path) -> None:
    pods = FakePod("a", {"churn@v2"}), FakePod("b", BOTH)
    agents = FakePod("a", BOTH), FakePod("b", BOTH)
    for pod in pods:
        pod.behave = pod.vllm
    async with opening(tmp_path, *pods, agents=agents) as door:
        for _ in range(2):
            status, body, _ = await door.complete("churn@v1")
            assert (status, body["model"]) == (200, "churn@v1")
        assert len(pods[1].bodies) == 2
