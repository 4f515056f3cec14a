"""values.yaml and its schema: what helm takes, and how it refuses the rest."""

from typing import Any

import pytest
import yaml

from tests.chart.rendering import CHART, containers, helm, of_kind, refusal, render


def test_lint() -> None:
    done = helm("lint", "--strict", str(CHART), "--kube-version", "1.36.0")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"gateways": {}}, "gateways"),
        ({"gateway": {"replica": 2}}, "replica"),
        ({"gateway": {"replicas": 0}}, "/gateway/replicas"),
        ({"gateway": {"defaultNamespace": "No_Name"}}, "/gateway/defaultNamespace"),
        ({"policy": {"default": {"s3Endpoints": ["minio.our.org"]}}}, "s3Endpoints"),
        ({"gateway": {"replicas": "two"}}, "/gateway/replicas"),
        ({"gateway": {"service": {"type": "Clusterip"}}}, "/gateway/service/type"),
        ({"gateway": {"service": {"port": 70000}}}, "/gateway/service/port"),
        ({"gateway": {"resources": {"limits": {"memory": "lots"}}}}, "/gateway/resources/limits/memory"),
        ({"operator": {"image": {"pullPolicy": "never"}}}, "/operator/image/pullPolicy"),
        ({"operator": {"image": {"repository": ""}}}, "/operator/image/repository"),
        ({"operator": {"logLevel": "verbose"}}, "/operator/logLevel"),
        ({"operator": {"replicas": 0}}, "/operator/replicas"),
        ({"metricsApi": {"enabled": "no"}}, "/metricsApi/enabled"),
        ({"store": {"persistence": {"size": "fifty"}}}, "/store/persistence/size"),
        ({"store": {"secrets": "All"}}, "/store/secrets"),
        ({"store": {"secretNamespaces": ["Team A"]}}, "/store/secretNamespaces/0"),
        ({"policy": {"default": {"allowed": []}}}, "allowed"),
        ({"policy": {"default": {"signature": {"publicKeys": ["key"]}}}}, "/policy/default/signature"),
        ({"runtime": {"image": {"digest": "sha256:0"}}}, "digest"),
        ({"imagePullSecrets": [{"name": "pull"}]}, "/imagePullSecrets/0"),
    ],
)
def test_wrong_values_are_refused_by_key(values: dict[str, Any], key: str) -> None:
    assert key in refusal(values)


def test_every_value_is_read() -> None:
    """A value that no template reads promises what nobody does."""
    templates = "".join(path.read_text() for path in (CHART / "templates").iterdir())

    def leaves(value: Any, path: tuple[str, ...]) -> list[tuple[str, ...]]:
        if isinstance(value, dict) and value and path[-1:] not in {("resources",), ("image",)}:
            return [leaf for key, inner in value.items() for leaf in leaves(inner, (*path, key))]
        return [path]

    # Placement is read by a template of its own, which is given the whole part.
    shared = {"nodeSelector", "tolerations"}
    paths = leaves(yaml.safe_load((CHART / "values.yaml").read_text()), ())
    unread = [path for path in paths if path[-1] not in shared and f".Values.{'.'.join(path)}" not in templates]
    assert unread == []


def test_images_and_pull_secrets() -> None:
    values = {
        "operator": {"image": {"repository": "registry.example/op", "tag": "1"}},
        "gateway": {"image": {"repository": "registry.example/gw", "tag": "2", "pullPolicy": "Always"}},
        "runtime": {"image": {"repository": "registry.example/rt", "tag": "3", "pullPolicy": "Never"}},
        "imagePullSecrets": ["pull"],
    }
    manifests = render(values)
    images = {name: container["image"] for name, container in containers(manifests).items()}
    assert images == {
        "motet-operator": "registry.example/op:1",
        "motet-metrics-api": "registry.example/op:1",
        "motet-store": "registry.example/op:1",
        "motet-gateway": "registry.example/gw:2",
    }
    operator = containers(manifests)["motet-operator"]
    assert "registry.example/rt:3" in str(operator.get("args", []) + operator.get("env", []))
    for item in of_kind(manifests, "Deployment").values():
        assert item["spec"]["template"]["spec"]["imagePullSecrets"] == [{"name": "pull"}]


def test_tag_defaults_to_the_version_of_the_application() -> None:
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert {container["image"].rpartition(":")[2] for container in containers(render()).values()} == {version}


def test_placement() -> None:
    tolerations = [{"key": "serving", "operator": "Exists"}]
    manifests = render(
        {
            part: {"nodeSelector": {"pool": part}, "tolerations": tolerations}
            for part in ("operator", "gateway", "metricsApi", "store")
        }
    )
    pods = {name: item["spec"]["template"]["spec"] for name, item in of_kind(manifests, "Deployment").items()}
    assert pods["motet-metrics-api"]["nodeSelector"] == {"pool": "metricsApi"}
    assert pods["motet-gateway"]["nodeSelector"] == {"pool": "gateway"}
    assert all(pod["tolerations"] == tolerations for pod in pods.values())


def test_another_release_name_is_part_of_every_name() -> None:
    assert "blue-motet-gateway" in of_kind(render(release="blue"), "Deployment")
    assert "motet-blue-gateway" in of_kind(render(release="motet-blue"), "Deployment")
