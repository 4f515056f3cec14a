"""The chart on a real API server: installed twice it changes nothing, and the metrics API is really an API."""

import json

import pytest

from demo_lib.installation import NAMESPACE, Installation
from motet_api.names import CUSTOM_METRICS_GROUP
from tests.e2e.values import VALUES

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def certificate(installation: Installation) -> str:
    """The serving certificate of the metrics API."""
    path = "jsonpath={.data.tls\\.crt}"
    return installation.cluster.kubectl("-n", NAMESPACE, "get", "secret", "motet-metrics-api", "-o", path)


def pods(installation: Installation) -> dict[str, int]:
    """Restarts by pod."""
    items = json.loads(installation.cluster.kubectl("-n", NAMESPACE, "get", "pods", "-o", "json"))["items"]
    return {item["metadata"]["name"]: item["status"]["containerStatuses"][0]["restartCount"] for item in items}


def test_installing_again_keeps_the_certificate_and_the_pods(installation: Installation, tags: dict[str, str]) -> None:
    before = certificate(installation), pods(installation)
    installation.install(tags, VALUES)
    assert (certificate(installation), pods(installation)) == before


@pytest.mark.parametrize("version", ["v1beta1", "v1beta2"])
def test_the_api_is_available_and_discovered(installation: Installation, version: str) -> None:
    kubectl = installation.cluster.kubectl
    kubectl("wait", "--for=condition=Available", f"apiservice/{version}.{CUSTOM_METRICS_GROUP}", "--timeout=30s")
    listed = json.loads(kubectl("get", "--raw", f"/apis/{CUSTOM_METRICS_GROUP}/{version}"))
    assert listed["groupVersion"] == f"{CUSTOM_METRICS_GROUP}/{version}"
    assert [resource["name"] for resource in listed["resources"]] == ["modeldeployments.motet.dev/motet_queue_depth"]


def test_a_user_without_the_right_is_refused(installation: Installation) -> None:
    path = f"/apis/{CUSTOM_METRICS_GROUP}/v1beta2/namespaces/default/modeldeployments.motet.dev/any/motet_queue_depth"
    refused = installation.cluster.kubectl("get", "--raw", path, "--as=somebody", check=False)
    assert "forbidden" in refused.lower()
