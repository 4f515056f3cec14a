"""The aggregated API over real TLS: who may ask, and the exact JSON of the answers."""

import json
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from motet_api.wire import Demand, ModelDemand
from motet_operator.errors import NotFoundError, UnavailableError
from motet_operator.metrics_api.authorization import REMEMBER_SECONDS, Access, Authorizer
from motet_operator.metrics_api.demand import DemandBook, Gateway
from motet_operator.metrics_api.identity import RequestHeaderTrust, User, read_trust
from motet_operator.metrics_api.listener import Listener, server_context
from motet_operator.metrics_api.routes import MetricsApi
from tests.operator.certificates import Pair, authority, signed
from tests.operator.factories import MODEL, NAMESPACE, NOW

PATH = (
    f"/apis/custom.metrics.k8s.io/v1beta2/namespaces/{NAMESPACE}/modeldeployments.motet.dev/{MODEL}/motet_queue_depth"
)
HPA = {"X-Remote-User": "system:serviceaccount:kube-system:horizontal-pod-autoscaler", "X-Remote-Group": "system:all"}
GATEWAY = Gateway("http://10.0.0.1:8080")
ACCESS = Access("v1beta2", NAMESPACE, "modeldeployments.motet.dev", MODEL, "motet_queue_depth")


class Pki:
    """Two authorities, and a certificate for every case."""

    def __init__(self, folder: Path) -> None:
        self.front_proxy = authority(folder, "front-proxy-ca")
        other = authority(folder, "other-ca")
        self.server = signed(folder, "metrics", other, "serverAuth")
        self.proxy = signed(folder, "front-proxy-client", self.front_proxy, "clientAuth")
        self.wrong_name = signed(folder, "somebody", self.front_proxy, "clientAuth")
        self.wrong_authority = signed(folder, "front-proxy-client", other, "clientAuth")
        self.server_authority = other


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pki]:
    yield Pki(tmp_path_factory.mktemp("pki"))


class Reviewer:
    """Allows or not; keeps what it was asked."""

    def __init__(self, allowed: bool = True, error: Exception | None = None) -> None:
        self.allowed = allowed
        self.error = error
        self.asked: list[dict[str, Any]] = []

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        assert path == "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        self.asked.append(body["spec"])
        if self.error is not None:
            raise self.error
        return {"status": {"allowed": self.allowed}}


def filled_book() -> DemandBook:
    book = DemandBook(10)
    book.set_gateways([GATEWAY], NOW)
    demand = Demand(at=0.0, models=[ModelDemand(namespace=NAMESPACE, name=MODEL, waiting=5, running=2)])
    book.heard(GATEWAY, demand, NOW)
    return book


@asynccontextmanager
async def serving(
    pki: Pki,
    book: DemandBook | None = None,
    reviewer: Reviewer | None = None,
    names: tuple[str, ...] = ("front-proxy-client",),
) -> AsyncIterator[str]:
    trust = RequestHeaderTrust(pki.front_proxy.certificate.read_text(), names, ("X-Remote-User",), ("X-Remote-Group",))
    authorizer = Authorizer(reviewer or Reviewer(), lambda: 0.0)
    api = MetricsApi(book or filled_book(), authorizer, lambda: trust, lambda: NOW + timedelta(seconds=1))
    runner = web.AppRunner(api.application(), shutdown_timeout=0.01)
    await runner.setup()
    context = server_context(pki.server.certificate, pki.server.key, trust.authority)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield f"https://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def get(
    pki: Pki, url: str, client: Pair | None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    context = ssl.create_default_context(cafile=str(pki.server_authority.certificate))
    if client is not None:
        context.load_cert_chain(client.certificate, client.key)
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(connector=connector) as session, session.get(url, headers=headers) as response:
        text = await response.text()
        return response.status, json.loads(text) if text.startswith("{") else {"text": text}


async def test_the_api_server_gets_the_value(pki: Pki) -> None:
    async with serving(pki) as url:
        status, body = await get(pki, url + PATH, pki.proxy, HPA)
    assert status == 200
    assert body == {
        "kind": "MetricValueList",
        "apiVersion": "custom.metrics.k8s.io/v1beta2",
        "metadata": {},
        "items": [
            {
                "describedObject": {
                    "kind": "ModelDeployment",
                    "namespace": NAMESPACE,
                    "name": MODEL,
                    "apiVersion": "motet.dev/v1alpha1",
                },
                "metric": {"name": "motet_queue_depth", "selector": None},
                "timestamp": "2026-11-24T10:00:00Z",
                "windowSeconds": 1,
                "value": "7",
            }
        ],
    }


async def test_v1beta1_has_its_own_names(pki: Pki) -> None:
    async with serving(pki) as url:
        _, body = await get(pki, url + PATH.replace("v1beta2", "v1beta1"), pki.proxy, HPA)
    (item,) = body["items"]
    assert body["apiVersion"] == "custom.metrics.k8s.io/v1beta1"
    assert (item["metricName"], item["window"], item["value"]) == ("motet_queue_depth", 1, "7")


@pytest.mark.parametrize(
    ("client", "headers"),
    [
        (lambda pki: None, HPA),
        (lambda pki: pki.wrong_name, HPA),
        (lambda pki: pki.proxy, {}),
        (lambda pki: pki.proxy, {"X-Remote-User": ""}),
    ],
    ids=["no certificate", "another name", "no user", "an empty user"],
)
async def test_headers_of_anybody_else_are_not_believed(
    pki: Pki, client: Callable[[Pki], Pair | None], headers: dict[str, str]
) -> None:
    reviewer = Reviewer()
    async with serving(pki, reviewer=reviewer) as url:
        status, body = await get(pki, url + PATH, client(pki), headers)
    assert (status, body["kind"], body["reason"]) == (401, "Status", "Unauthorized")
    assert reviewer.asked == []


async def test_a_certificate_of_another_authority_is_refused_by_tls(pki: Pki) -> None:
    async with serving(pki) as url:
        with pytest.raises(aiohttp.ClientError):
            await get(pki, url + PATH, pki.wrong_authority, HPA)


async def test_without_allowed_names_any_certificate_of_the_authority_will_do(pki: Pki) -> None:
    async with serving(pki, names=()) as url:
        assert (await get(pki, url + PATH, pki.wrong_name, HPA))[0] == 200
        assert (await get(pki, url + PATH, None, HPA))[0] == 401


async def test_a_user_without_the_right_is_refused(pki: Pki) -> None:
    reviewer = Reviewer(allowed=False)
    async with serving(pki, reviewer=reviewer) as url:
        status, body = await get(pki, url + PATH, pki.proxy, HPA)
    assert (status, body["reason"]) == (403, "Forbidden")
    (spec,) = reviewer.asked
    assert spec["user"] == HPA["X-Remote-User"]
    assert spec["groups"] == ["system:all"]
    assert spec["resourceAttributes"] == {
        "group": "custom.metrics.k8s.io",
        "version": "v1beta2",
        "namespace": NAMESPACE,
        "resource": "modeldeployments.motet.dev",
        "subresource": "motet_queue_depth",
        "name": MODEL,
        "verb": "get",
    }


async def test_rights_that_cannot_be_checked_are_no_answer(pki: Pki) -> None:
    async with serving(pki, reviewer=Reviewer(error=UnavailableError("timed out"))) as url:
        assert (await get(pki, url + PATH, pki.proxy, HPA))[0] == 503


@pytest.mark.parametrize(
    "path",
    [
        PATH.replace("motet_queue_depth", "other"),
        PATH.replace("modeldeployments.motet.dev", "pods"),
        PATH.replace("v1beta2", "v2"),
        PATH.replace(MODEL, "unknown"),
        PATH + "?metricLabelSelector=a%3Db",
        "/apis/custom.metrics.k8s.io/v9",
        "/openapi/v2",
        "/",
    ],
)
async def test_what_there_is_not_is_a_status_object(pki: Pki, path: str) -> None:
    async with serving(pki) as url:
        status, body = await get(pki, url + path, pki.proxy, HPA)
    assert (status, body["kind"], body["apiVersion"], body["code"]) == (404, "Status", "v1", 404)


async def test_an_empty_selector_selects_everything(pki: Pki) -> None:
    async with serving(pki) as url:
        assert (await get(pki, url + PATH + "?metricLabelSelector=", pki.proxy, HPA))[0] == 200


async def test_stale_is_404_and_never_a_number(pki: Pki) -> None:
    book = filled_book()
    book.set_gateways([GATEWAY, Gateway("http://10.0.0.9:8080")], NOW)
    async with serving(pki, book) as url:
        status, body = await get(pki, url + PATH, pki.proxy, HPA)
    assert (status, body["reason"]) == (404, "NotFound")
    assert "not known at present" in body["message"]


async def test_discovery_and_probes_need_no_certificate(pki: Pki) -> None:
    async with serving(pki) as url:
        assert (await get(pki, url + "/livez", None))[0] == 200
        assert (await get(pki, url + "/readyz", None))[0] == 200
        _, groups = await get(pki, url + "/apis", None)
        _, group = await get(pki, url + "/apis/custom.metrics.k8s.io", None)
        documents = [await get(pki, f"{url}/apis/custom.metrics.k8s.io/{v}", None) for v in ("v1beta1", "v1beta2")]
    assert groups["groups"][0]["name"] == "custom.metrics.k8s.io"
    assert group["preferredVersion"]["version"] == "v1beta2"
    for (status, document), version in zip(documents, ("v1beta1", "v1beta2"), strict=True):
        assert status == 200
        assert document["groupVersion"] == f"custom.metrics.k8s.io/{version}"
        (resource,) = document["resources"]
        assert resource["name"] == "modeldeployments.motet.dev/motet_queue_depth"
        assert (resource["namespaced"], resource["kind"], resource["verbs"]) == (True, "MetricValueList", ["get"])


async def test_answers_about_rights_are_remembered_for_a_while() -> None:
    reviewer, now = Reviewer(), [0.0]
    authorizer = Authorizer(reviewer, lambda: now[0])
    user = User("hpa", ())
    assert await authorizer.allowed(user, ACCESS)
    reviewer.allowed = False
    assert await authorizer.allowed(user, ACCESS)
    now[0] = REMEMBER_SECONDS + 1
    assert not await authorizer.allowed(user, ACCESS)
    assert len(reviewer.asked) == 2


async def test_masters_are_not_reviewed() -> None:
    reviewer = Reviewer(allowed=False)
    assert await Authorizer(reviewer, lambda: 0.0).allowed(User("admin", ("system:masters",)), ACCESS)
    assert reviewer.asked == []


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"requestheader-client-ca-file": ""},
        {"requestheader-client-ca-file": "x", "requestheader-allowed-names": "1"},
    ],
)
def test_a_config_map_that_names_no_authority_is_an_error(data: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"request-header authority|not a list"):
        read_trust({"data": data})


class ConfigMaps:
    """The cluster, as far as the listener reads it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.missing = False

    async def read(self, path: str) -> dict[str, Any]:
        assert path.endswith("/kube-system/configmaps/extension-apiserver-authentication")
        if self.missing:
            raise NotFoundError(path)
        data = {
            "requestheader-client-ca-file": self.text,
            "requestheader-allowed-names": "[]",
            "requestheader-username-headers": '["X-Remote-User"]',
        }
        return {"data": data}


async def test_the_port_opens_anew_when_the_authority_changes(pki: Pki, unused_port: int) -> None:
    config = ConfigMaps(pki.server_authority.certificate.read_text())
    listener = Listener(config, pki.server.certificate, pki.server.key, unused_port, "127.0.0.1")
    authorizer = Authorizer(Reviewer(), lambda: 0.0)
    api = MetricsApi(filled_book(), authorizer, listener.trust, lambda: NOW)
    runner = web.AppRunner(api.application(), shutdown_timeout=0.01)
    await runner.setup()
    url = f"https://127.0.0.1:{unused_port}{PATH}"
    try:
        await listener.refresh(runner)
        with pytest.raises(aiohttp.ClientError):
            await get(pki, url, pki.proxy, HPA)
        config.text = pki.front_proxy.certificate.read_text()
        await listener.refresh(runner)
        assert (await get(pki, url, pki.proxy, HPA))[0] == 200
        await listener.refresh(runner)
        assert len(runner.sites) == 1
        config.missing = True
        with pytest.raises(NotFoundError):
            await listener.refresh(runner)
        assert (await get(pki, url, pki.proxy, HPA))[0] == 200
    finally:
        await runner.cleanup()


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
