"""The gateway from end to end: copies of requests, which nobody but the counts gets to see."""

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from motet_api.errors import ErrorCode
from motet_api.names import ADAPTER_VERSION_HEADER, MIRROR_HEADER
from motet_gateway.mirroring import MAX_COPIES
from tests.gateway.fake_pod import Behaviour, FakePod, asked, version_headers
from tests.gateway.front_door import BOTH, FrontDoor, Opening, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIRRORED = {
    "name": "churn",
    "model": "tiny",
    "versions": ["v1", "v2"],
    "traffic": [{"version": "v1", "weight": 1}],
    "mirror": [{"version": "v2", "percent": 100}],
}


def by_version(v1: Behaviour, v2: Behaviour) -> Behaviour:
    async def behave(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return await (v2 if asked(body) == "churn@v2" else v1)(request, body)

    return behave


def saying(text: str) -> Behaviour:
    """Answers a completion with this, in events if it is asked to."""

    async def behave(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if not body.get("stream"):
            return web.json_response({"choices": [{"index": 0, "text": text}]}, headers=version_headers(body))
        response = web.StreamResponse(headers={"content-type": "text/event-stream"} | version_headers(body))
        await response.prepare(request)
        for piece in text:
            await response.write(b'data: {"choices":[{"index":0,"text":"' + piece.encode() + b'"}]}\n\n')
        await response.write_eof()
        return response

    return behave


def judging(yes: float) -> Behaviour:
    """Answers a classification with this probability of "yes"."""

    async def behave(_request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        labels = [{"label": "yes", "score": yes}, {"label": "no", "score": 1 - yes}]
        row = {"index": 0, "label": "yes" if yes > 0.5 else "no", "score": max(yes, 1 - yes), "labels": labels}
        return web.json_response({"object": "list", "data": [row]}, headers=version_headers(body))

    return behave


async def until_copied(door: FrontDoor, outcome: str, number: int = 1) -> None:
    async def counted() -> bool:
        labels = f'adapter="churn",model="tiny",namespace="default",outcome="{outcome}",version="v2"'
        return f"motet_gateway_mirrored_requests_total{{{labels}}} {number}.0" in (await door.get("/metrics"))[1]

    await until(counted, what=f"{number} {outcome}")


@pytest.mark.parametrize(("text", "agreed"), [("yes", 1), ("no", 0)])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_copy_is_compared(opening: Opening, tmp_path: Path, text: str, agreed: int, stream: bool) -> None:
    pod = FakePod("a", BOTH)
    pod.behave = by_version(saying("yes"), saying(text))
    async with opening(tmp_path, pod, adapters=[MIRRORED]) as door:
        body = {"model": "churn", "prompt": "x", "stream": stream}
        async with door.client.post(door.url + "/v1/completions", json=body) as answer:
            assert answer.headers[ADAPTER_VERSION_HEADER] == "v1"
            await answer.read()
        await door.until_outcome("v2", requests=1, errors=0, compared=1, agreed=agreed, scored=0, in_flight=0)
        await door.until_outcome("v1", requests=1, compared=0)
        assert [(each["model"], each["stream"]) for each in pod.bodies] == [("churn@v1", stream), ("churn@v2", False)]
        assert [headers.get(MIRROR_HEADER) for headers in pod.headers] == [None, "1"]
        await until_copied(door, "answered")
        assert 'version="v2",code' not in (await door.get("/metrics"))[1], "no request of a user"


async def test_drift_is_that_of_the_probabilities(opening: Opening, tmp_path: Path) -> None:
    pod = FakePod("a", BOTH)
    pod.behave = by_version(judging(0.75), judging(0.625))
    async with opening(tmp_path, pod, adapters=[MIRRORED]) as door:
        await door.post("/v1/classify", {"model": "churn", "input": "x", "labels": ["yes", "no"]})
        await door.until_outcome("v2", compared=1, agreed=1, scored=1, drift_sum=0.125)


async def test_lorax_requests_are_copied_in_one_piece(opening: Opening, tmp_path: Path) -> None:
    pod = FakePod("a", BOTH)

    async def generated(_request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return web.json_response({"generated_text": "yes"}, headers=version_headers(body))

    pod.behave = generated
    async with opening(tmp_path, pod, adapters=[MIRRORED]) as door:
        await door.post("/generate_stream", {"inputs": "x", "parameters": {"adapter_id": "churn", "seed": 1}})
        await door.until_outcome("v2", compared=1, agreed=1)
        assert pod.bodies[-1]["parameters"] == {"adapter_id": "churn@v2", "seed": 1}
        assert pod.paths == ["/generate_stream", "/generate"]


@pytest.mark.parametrize(("code", "errors"), [(ErrorCode.GENERATION_FAILED, 1), (ErrorCode.INVALID_REQUEST, 0)])
async def test_a_copy_that_fails_is_evidence_and_nothing_to_the_client(
    opening: Opening, tmp_path: Path, code: ErrorCode, errors: int
) -> None:
    pod = FakePod("a", BOTH)
    pod.behave = by_version(saying("yes"), pod.refuse(code))
    async with opening(tmp_path, pod, adapters=[MIRRORED]) as door:
        assert (await door.complete("churn"))[0] == 200
        await until_copied(door, "failed" if errors else "dropped")
        await door.until_outcome("v2", requests=errors, errors=errors, compared=0)


async def test_a_copy_delays_nobody(opening: Opening, tmp_path: Path) -> None:
    pod = FakePod("a", BOTH, batch=2)
    pod.behave = by_version(saying("yes"), pod.hold)
    async with opening(tmp_path, pod, adapters=[MIRRORED]) as door:
        assert (await door.complete("churn"))[0] == 200
        await door.until_outcome("v2", in_flight=1)
        assert (await door.complete("churn"))[0] == 200
        # The pod has no place left beside the copy that it holds.
        await until_copied(door, "dropped")
        pod.go_on.set()
        await door.until_outcome("v2", in_flight=0)


async def test_only_requests_that_the_split_decides_over_are_copied(opening: Opening, tmp_path: Path) -> None:
    pod = FakePod("a", BOTH)
    some = MIRRORED | {"mirror": [{"version": "v2", "percent": 30}]}
    async with opening(tmp_path, pod, adapters=[some]) as door:
        await asyncio.gather(*(door.complete(name) for name in ("churn@v1", "churn@v2", "tiny")))
        for number in range(100):
            await door.complete("churn", x_request_id=f"r{number}")

        async def all_there() -> bool:
            outcome = {each.version: each for each in (await door.outcomes()).versions}["v2"]
            return outcome.in_flight == 0

        await until(all_there)
        copies = sum(MIRROR_HEADER in headers for headers in pod.headers)
        assert 15 <= copies <= 45


async def test_versions_under_trial_are_not_compared_with_each_other(opening: Opening, tmp_path: Path) -> None:
    trial = MIRRORED | {
        "versions": ["v1", "v2", "v3"],
        "traffic": [{"version": name, "weight": 1} for name in ("v1", "v2", "v3")],
        "mirror": [{"version": name, "percent": 100} for name in ("v2", "v3")],
    }
    pod = FakePod("a", {"churn@v1", "churn@v2", "churn@v3"}, batch=64)
    pod.behave = saying("yes")
    async with opening(tmp_path, pod, adapters=[trial]) as door:
        by_v1 = 0
        for number in range(30):
            headers = (await door.complete("churn", x_request_id=f"r{number}"))[2]
            by_v1 += headers[ADAPTER_VERSION_HEADER] == "v1"
        assert 0 < by_v1 < 30
        for version in ("v2", "v3"):
            await door.until_outcome(version, compared=by_v1, in_flight=0)
        await door.until_outcome("v1", requests=by_v1, compared=0)
        assert sum(MIRROR_HEADER in headers for headers in pod.headers) == 2 * by_v1


async def test_a_version_that_is_nowhere_is_not_waited_for(opening: Opening, tmp_path: Path) -> None:
    async with opening(tmp_path, FakePod("a", {"churn@v1"}), adapters=[MIRRORED]) as door:
        assert (await door.complete("churn"))[0] == 200
        await until_copied(door, "dropped")
        await door.until_outcome("v2", requests=0, in_flight=0)


async def test_copies_are_bounded_in_number_and_size_and_end_with_the_gateway(opening: Opening, tmp_path: Path) -> None:
    pod = FakePod("a", BOTH, batch=64)
    pod.behave = by_version(saying("yes"), pod.hold)
    async with opening(tmp_path, pod, adapters=[MIRRORED]) as door:
        large = io.BytesIO(json.dumps({"model": "churn", "prompt": "x" * (1 << 20)}).encode())
        async with door.client.post(door.url + "/v1/completions", data=large) as answer:
            assert answer.status == 200
        await until_copied(door, "dropped", 1)
        for _ in range(MAX_COPIES + 2):
            assert (await door.complete("churn"))[0] == 200
        await door.until_outcome("v2", in_flight=MAX_COPIES)
        await until_copied(door, "dropped", 3)
        door.stop.set()
        await door.served

        async def cancelled() -> bool:
            return pod.left == MAX_COPIES

        await until(cancelled, what="the copies given up")


async def test_a_copy_that_breaks_off_has_failed(opening: Opening, tmp_path: Path) -> None:
    pod = FakePod("a", BOTH)
    pod.behave = by_version(saying("yes"), pod.break_off)
    pod.go_on.set()
    async with opening(tmp_path, pod, adapters=[MIRRORED]) as door:
        assert (await door.complete("churn"))[0] == 200
        await door.until_outcome("v2", requests=1, errors=1, compared=0, in_flight=0)
