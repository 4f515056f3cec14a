"""The adapter store in the chart: what it is started with, who reaches it, which Secrets it may read, what it keeps."""

from typing import Any

import pytest
import yaml

from motet_api.names import STORE_ADMIN_PORT, STORE_PORT
from motet_operator.command_line import make_parser
from motet_operator.installation_options import installation_of
from motet_operator.policy_source import parse_policy
from tests.chart.rendering import Manifest, containers, of_kind, render
from tests.chart.test_security import rules

SECRETS = {("", "secrets"): {"get"}}
POLICY = {
    "default": {"allowedSources": ["hf://ours/*"]},
    "namespaces": {"team-a": {"allowedSources": ["*"], "maxAdapters": 5}},
    "privateNetworks": ["10.0.0.0/8"],
}


def store_role(manifests: list[Manifest], kind: str) -> list[tuple[str, Any, str | None]]:
    """(name, rules, namespace) of every role of the store."""
    return [
        (item["metadata"]["name"], rules(item), item["metadata"].get("namespace"))
        for item in manifests
        if item["kind"] == kind and item["metadata"]["name"].endswith("-store")
    ]


def test_the_command_line_is_one_that_the_store_takes() -> None:
    values = {"store": {"plainHttpRegistries": ["registry:5000"], "persistence": {"size": "7Gi"}, "jobs": 3}}
    options = make_parser().parse_args(containers(render(values))["motet-store"]["args"])
    assert (options.command, options.port, options.admin_port) == ("store", STORE_PORT, STORE_ADMIN_PORT)
    assert (options.disk, options.jobs, options.secrets) == (7 << 30, 3, "cluster")
    assert options.plain_http_registry == ["registry:5000"]


def test_the_operator_and_the_runtime_pods_know_where_it_is() -> None:
    manifests = render()
    options = make_parser().parse_args(containers(manifests)["motet-operator"]["args"])
    installation = installation_of(options)
    service = of_kind(manifests, "Service")["motet-store"]
    assert installation.store == f"http://motet-store.{service['metadata']['namespace']}.svc:{STORE_PORT}"
    assert options.store_admin_url == installation.store.replace(str(STORE_PORT), str(STORE_ADMIN_PORT))
    assert [port["port"] for port in service["spec"]["ports"]] == [STORE_PORT, STORE_ADMIN_PORT]
    pod = of_kind(manifests, "Deployment")["motet-store"]["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= pod.items()
    assert installation.peers is not None
    assert installation.peers.store is not None
    assert installation.peers.store.labels.items() <= pod.items()


def test_switched_off_nothing_of_it_is_left() -> None:
    manifests = render({"store": {"enabled": False}})
    assert not any("store" in item["metadata"]["name"] for item in manifests)
    installation = installation_of(make_parser().parse_args(containers(manifests)["motet-operator"]["args"]))
    assert installation.store == ""
    assert installation.peers is not None
    assert installation.peers.store is None


def test_there_is_one_owner_of_the_folder() -> None:
    spec = of_kind(render(), "Deployment")["motet-store"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_the_folder_is_the_pods_or_a_claim() -> None:
    def volume(manifests: list[Manifest]) -> Manifest:
        volumes = of_kind(manifests, "Deployment")["motet-store"]["spec"]["template"]["spec"]["volumes"]
        return next(item for item in volumes if item["name"] == "data")

    assert volume(render()) == {"name": "data", "emptyDir": {"sizeLimit": "50Gi"}}
    assert of_kind(render(), "PersistentVolumeClaim") == {}
    kept = render({"store": {"persistence": {"size": "9Gi", "claim": {"enabled": True, "storageClassName": "fast"}}}})
    claim = of_kind(kept, "PersistentVolumeClaim")["motet-store"]
    assert volume(kept) == {"name": "data", "persistentVolumeClaim": {"claimName": "motet-store"}}
    assert claim["spec"]["resources"] == {"requests": {"storage": "9Gi"}}
    assert claim["spec"]["storageClassName"] == "fast"


def test_secrets_are_read_in_listed_namespaces_only() -> None:
    assert [store_role(render(), kind) for kind in ("Role", "ClusterRole")] == [[], []]
    listed = render({"store": {"secretNamespaces": ["team-a", "team-b"]}})
    assert store_role(listed, "ClusterRole") == []
    assert store_role(listed, "Role") == [("motet-system:motet-store", SECRETS, name) for name in ("team-a", "team-b")]
    bindings = [
        item for item in listed if item["kind"] == "RoleBinding" and item["metadata"]["name"].endswith("-store")
    ]
    assert [item["metadata"]["namespace"] for item in bindings] == ["team-a", "team-b"]
    assert all(item["subjects"][0]["namespace"] == "motet-system" for item in bindings)


@pytest.mark.parametrize("secrets", ["Cluster", "None"])
def test_secrets_of_all_namespaces_or_of_none(secrets: str) -> None:
    manifests = render({"store": {"secrets": secrets, "secretNamespaces": ["team-a"]}})
    everywhere = [("motet-system:motet-store", SECRETS, None)] if secrets == "Cluster" else []
    assert (store_role(manifests, "Role"), store_role(manifests, "ClusterRole")) == ([], everywhere)
    pod = of_kind(manifests, "Deployment")["motet-store"]["spec"]["template"]["spec"]
    assert pod.get("automountServiceAccountToken", True) is (secrets == "Cluster")
    options = make_parser().parse_args(containers(manifests)["motet-store"]["args"])
    assert options.secrets == secrets.lower()


def test_pods_read_and_only_the_operator_orders() -> None:
    manifests = render({"networkPolicies": {"metricsNamespace": "monitoring"}})
    policy = of_kind(manifests, "NetworkPolicy")["motet-store"]["spec"]
    deployments = of_kind(manifests, "Deployment")
    labels = {name: item["spec"]["template"]["metadata"]["labels"] for name, item in deployments.items()}

    def callers(port: int) -> list[dict[str, Any]]:
        return [
            peer for rule in policy["ingress"] for peer in rule["from"] if port in {p["port"] for p in rule["ports"]}
        ]

    assert policy["podSelector"]["matchLabels"].items() <= labels["motet-store"].items()
    assert policy["policyTypes"] == ["Ingress"]
    orders = callers(STORE_ADMIN_PORT)
    assert len(orders) == 1
    assert "namespaceSelector" not in orders[0]
    wanted = orders[0]["podSelector"]["matchLabels"].items()
    assert [name for name in labels if wanted <= labels[name].items()] == ["motet-operator"]
    components = [peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for peer in callers(STORE_PORT)]
    assert components == ["runtime", "prefetch", "operator"]
    assert callers(9090) == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]


def test_network_policies_can_be_switched_off() -> None:
    assert of_kind(render({"networkPolicies": {"enabled": False}}), "NetworkPolicy") == {}


@pytest.mark.parametrize("name", ["motet-store", "motet-operator"])
def test_store_and_operator_read_the_same_policy(name: str) -> None:
    manifests = render()
    pod = of_kind(manifests, "Deployment")[name]["spec"]["template"]["spec"]
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    options = make_parser().parse_args(pod["containers"][0]["args"])
    assert str(options.policy) == f"{mounts['policy']}/policy.yaml"
    sources = {volume["name"]: volume for volume in pod["volumes"]}
    assert sources["policy"]["configMap"]["name"] in of_kind(manifests, "ConfigMap")


def test_the_policy_is_what_the_values_say() -> None:
    text = of_kind(render({"policy": POLICY}), "ConfigMap")["motet-policy"]["data"]["policy.yaml"]
    assert yaml.safe_load(text) == POLICY
    policy = parse_policy(text.encode())
    assert policy.of("team-a").max_adapters == 5
    assert not policy.of("team-b").allows("s3://bucket/path")
    assert parse_policy(of_kind(render(), "ConfigMap")["motet-policy"]["data"]["policy.yaml"].encode())
