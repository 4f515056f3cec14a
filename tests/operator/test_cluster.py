"""The client against a server that answers as told: what is sent, and which error becomes which."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio import client

from motet_operator.errors import (
    ConflictError,
    NotFoundError,
    NotLeadingError,
    OperatorError,
    RefusedError,
    UnavailableError,
)
from motet_operator.keys import Kind
from motet_operator.kube.cluster import TURNED_AWAY_AGAIN, Cluster, resource_of


class Counter:
    """Takes down calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

        self.resources: list[str] = []
        self.waits: list[float] = []

    def api_called(self, verb: str, resource: str, code: int, seconds: float) -> None:
        assert seconds >= 0
        self.calls.append((verb, code))
        self.resources.append(resource)

    def api_waited(self, seconds: float) -> None:
        self.waits.append(seconds)


class Server:
    """Answers in turn, and keeps what it was asked."""

    def __init__(self, *answers: tuple[int, Any]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str, dict[str, str], dict[str, str], Any]] = []

    async def handle(self, request: web.Request) -> web.Response:
        text = await request.text()
        body = json.loads(text) if text else None
        self.asked.append((request.method, request.path, dict(request.query), dict(request.headers), body))
        code, answer = self.answers.pop(0) if self.answers else (200, {})
        headers = answer.pop("headers", {}) if isinstance(answer, dict) else {}
        if code == 0:
            await asyncio.Event().wait()
        return web.json_response(answer, status=code, headers=headers)


@asynccontextmanager
async def cluster_of(
    server: Server, counter: Counter | None = None, namespaces: tuple[str, ...] = (), **more: Any
) -> AsyncIterator[Cluster]:
    app = web.Application()
    app.add_routes([web.route("*", "/{path:.*}", server.handle)])
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    settings = client.Configuration(host=f"http://{host}:{port}")
    settings.api_key = {"BearerToken": "Bearer secret"}
    try:
        async with client.ApiClient(settings) as api:
            yield Cluster(api, counter or Counter(), namespaces, **more)
    finally:
        await runner.cleanup()


MANIFEST = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "llama", "namespace": "speech"}}


async def test_apply_is_server_side_apply_by_our_field_manager() -> None:
    server = Server((201, {"metadata": {"uid": "x"}}))
    counter = Counter()
    async with cluster_of(server, counter) as cluster:
        assert await cluster.apply(Kind.SERVICE, MANIFEST) == {"metadata": {"uid": "x"}}
    ((method, path, query, headers, body),) = server.asked
    assert (method, path) == ("PATCH", "/api/v1/namespaces/speech/services/llama")
    assert query == {"fieldManager": "motet-operator", "force": "true"}
    assert headers["Content-Type"] == "application/apply-patch+yaml"
    assert headers["authorization" if "authorization" in headers else "Authorization"] == "Bearer secret"
    assert body == MANIFEST
    assert counter.calls == [("apply", 201)]


async def test_a_status_goes_to_the_subresource() -> None:
    server = Server()
    async with cluster_of(server) as cluster:
        await cluster.apply_status(Kind.LORA_ADAPTER, MANIFEST | {"status": {}})
    assert server.asked[0][:2] == ("PATCH", "/apis/motet.dev/v1alpha1/namespaces/speech/loraadapters/llama/status")


async def test_lists_come_page_by_page_of_what_is_ours() -> None:
    pages = [
        (200, {"metadata": {"continue": "next"}, "items": [{"n": 1}]}),
        (200, {"metadata": {}, "items": [{"n": 2}]}),
    ]
    server = Server(*pages)
    async with cluster_of(server) as cluster:
        assert [item async for item in cluster.list(Kind.POD)] == [{"n": 1}, {"n": 2}]
    assert [asked[1] for asked in server.asked] == ["/api/v1/pods", "/api/v1/pods"]
    assert server.asked[0][2] == {"limit": "500", "labelSelector": "motet.dev/model-deployment"}
    assert server.asked[1][2]["continue"] == "next"


async def test_lists_are_of_the_given_namespaces_and_can_be_names_only() -> None:
    empty = (200, {"metadata": {}, "items": []})
    server = Server(empty, empty)
    async with cluster_of(server, namespaces=("a", "b")) as cluster:
        assert [item async for item in cluster.list(Kind.LORA_ADAPTER, metadata_only=True)] == []
    assert [asked[1] for asked in server.asked] == [
        "/apis/motet.dev/v1alpha1/namespaces/a/loraadapters",
        "/apis/motet.dev/v1alpha1/namespaces/b/loraadapters",
    ]
    assert "PartialObjectMetadataList" in server.asked[0][3]["Accept"]
    assert "labelSelector" not in server.asked[0][2]


async def test_delete_is_of_one_uid_and_forgives_absence() -> None:
    server = Server((404, {"message": "gone"}))
    async with cluster_of(server) as cluster:
        await cluster.delete(Kind.AUTOSCALER, "speech", "llama", "uid-1")
    assert server.asked[0][0] == "DELETE"
    assert server.asked[0][4]["preconditions"] == {"uid": "uid-1"}


async def test_events_are_created_in_their_group() -> None:
    server = Server((201, {}))
    async with cluster_of(server) as cluster:
        await cluster.create_event("speech", {"reason": "Ready"})
    assert server.asked[0][:2] == ("POST", "/apis/events.k8s.io/v1/namespaces/speech/events")


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (400, RefusedError),
        (401, UnavailableError),
        (403, RefusedError),
        (404, NotFoundError),
        (409, ConflictError),
        (422, RefusedError),
        (429, UnavailableError),
        (500, UnavailableError),
        (503, UnavailableError),
    ],
)
async def test_errors_by_what_to_do_about_them(code: int, error: type[OperatorError]) -> None:
    counter = Counter()
    async with cluster_of(Server((code, {"message": "spec.x: no", "reason": "Any"})), counter) as cluster:
        with pytest.raises(error, match=r"spec\.x: no") as caught:
            await cluster.get(Kind.SERVICE, "speech", "llama")
    assert type(caught.value) is error
    assert counter.calls == [("get", code)]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"message": ".spec.nope: field not declared in schema"}, RefusedError),
        ({"message": "etcd is down", "reason": "InternalError"}, UnavailableError),
        ("no status at all", UnavailableError),
    ],
)
async def test_a_manifest_that_cannot_be_decoded_is_refused_though_its_status_is_500(
    answer: Any, error: type[OperatorError]
) -> None:
    async with cluster_of(Server((500, answer))) as cluster:
        with pytest.raises(error) as caught:
            await cluster.apply(Kind.SERVICE, MANIFEST)
    assert type(caught.value) is error


async def test_an_answer_that_does_not_come_is_an_error_in_time() -> None:
    counter = Counter()
    async with cluster_of(Server((0, None)), counter, timeout_seconds=0.05) as cluster:
        with pytest.raises(UnavailableError):
            await cluster.get(Kind.SERVICE, "speech", "llama")
    assert counter.calls == [("get", 0)]


async def test_a_server_that_is_not_there_is_an_error() -> None:
    async with client.ApiClient(client.Configuration(host="http://127.0.0.1:9")) as api:
        with pytest.raises(UnavailableError):
            await Cluster(api, Counter()).get(Kind.SERVICE, "speech", "llama")


class Turns:
    """Nobody waits, and pauses are taken down."""

    def __init__(self) -> None:
        self.taken = 0
        self.pauses: list[float] = []

    async def take(self) -> float:
        self.taken += 1
        return 0.25

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)


def busy() -> tuple[int, Any]:
    return 429, {"message": "slow down", "headers": {"Retry-After": "3"}}


async def test_each_call_waits_for_its_turn() -> None:
    turns, counter = Turns(), Counter()
    async with cluster_of(Server(), counter, turns=turns) as cluster:
        await cluster.apply(Kind.SERVICE, MANIFEST)
        await cluster.get(Kind.SERVICE, "speech", "llama")
    assert turns.taken == 2
    assert counter.waits == [0.25, 0.25]


async def test_a_call_that_is_told_to_wait_is_made_again() -> None:
    turns, counter = Turns(), Counter()
    async with cluster_of(Server(busy(), (200, {"a": 1})), counter, turns=turns) as cluster:
        assert await cluster.get(Kind.SERVICE, "speech", "llama") == {"a": 1}
    assert turns.pauses == [3.0]
    assert counter.calls == [("get", 429), ("get", 200)]


async def test_a_call_that_is_turned_away_again_and_again_ends_the_pass() -> None:
    turns, counter = Turns(), Counter()
    async with cluster_of(Server(*(busy() for _ in range(9))), counter, turns=turns) as cluster:
        with pytest.raises(UnavailableError, match="slow down"):
            await cluster.get(Kind.SERVICE, "speech", "llama")
    assert len(counter.calls) == 1 + TURNED_AWAY_AGAIN


async def test_nothing_is_written_by_who_may_not_write() -> None:
    server = Server()
    async with cluster_of(server, may_write=lambda: False) as cluster:
        for write in (
            cluster.apply(Kind.SERVICE, MANIFEST),
            cluster.apply_status(Kind.LORA_ADAPTER, MANIFEST),
            cluster.delete(Kind.SERVICE, "speech", "llama", "uid"),
            cluster.create_event("speech", {}),
            cluster.replace("/apis/x/v1/y/z", {}),
        ):
            with pytest.raises(NotLeadingError):
                await write
        await cluster.get(Kind.SERVICE, "speech", "llama")
    assert [asked[0] for asked in server.asked] == ["GET"]


async def test_a_whole_object_is_replaced() -> None:
    server = Server((409, {"message": "changed"}))
    async with cluster_of(server) as cluster:
        with pytest.raises(ConflictError):
            await cluster.replace("/apis/coordination.k8s.io/v1/namespaces/a/leases/b", {"x": 1})
    assert server.asked[0][0] == "PUT"
    assert server.asked[0][4] == {"x": 1}


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        ("/api/v1/pods", "pods"),
        ("/api/v1/namespaces/a/pods/b", "pods"),
        ("/api/v1/namespaces/a", "namespaces"),
        ("/apis/motet.dev/v1alpha1/namespaces/a/loraadapters/b/status", "loraadapters/status"),
        ("/apis/apps/v1/deployments", "deployments"),
        ("/version", ""),
    ],
)
def test_which_resource_a_path_is_about(path: str, resource: str) -> None:
    assert resource_of(path) == resource
