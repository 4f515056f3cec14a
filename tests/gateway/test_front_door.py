"""The gateway from end to end: what reaches the pods, and what comes back."""

import asyncio
import json
from collections import Counter
from pathlib import Path

import pytest

from motet_api.errors import ErrorCode
from motet_api.names import (
    ADAPTER_HEADER,
    ADAPTER_VERSION_HEADER,
    MODEL_HEADER,
    POD_HEADER,
    REQUEST_ID_HEADER,
)
from tests.gateway.fake_pod import FakePod
from tests.gateway.front_door import BOTH, Opening, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


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


async def test_probes_and_lists_are_not_counted_as_requests(opening: Opening, tmp_path: Path) -> None:
    async with opening(tmp_path, FakePod("a", BOTH)) as door:
        for path in ("/", "/health", "/ping", "/livez", "/readyz", "/v1/models", "/motet/v1/demand"):
            assert (await door.get(path))[0] == 200
        _, metrics = await door.get("/metrics")
        assert "motet_gateway_requests_total{" not in metrics
