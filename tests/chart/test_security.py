"""What the chart's pods and accounts may do: restricted pods, and no right beyond the table below."""

import yaml

from tests.chart.rendering import CHART, Manifest, containers, of_kind, render

GATEWAY_RULES = {
    ("motet.dev", "modeldeployments"): {"list", "watch"},
    ("motet.dev", "loraadapters"): {"list", "watch"},
    ("discovery.k8s.io", "endpointslices"): {"list", "watch"},
}
METRICS_API_RULES = {("discovery.k8s.io", "endpointslices"): {"list"}}
METRICS_READER_RULES = {("custom.metrics.k8s.io", "modeldeployments.motet.dev/motet_queue_depth"): {"get"}}
APPLIED = {"get", "list", "watch", "create", "patch"}
OWN_NAMESPACE_RULES = {
    ("coordination.k8s.io", "leases"): {"create", "get", "update"},
    ("discovery.k8s.io", "endpointslices"): {"list"},
}
OPERATOR_RULES = {
    ("motet.dev", "modeldeployments"): {"list", "watch"},
    ("motet.dev", "loraadapters"): {"list", "watch"},
    ("motet.dev", "modeldeployments/status"): {"patch"},
    ("motet.dev", "loraadapters/status"): {"patch"},
    ("apps", "deployments"): APPLIED,
    ("", "services"): APPLIED,
    ("", "serviceaccounts"): APPLIED,
    ("policy", "poddisruptionbudgets"): APPLIED,
    ("apps", "daemonsets"): APPLIED | {"delete"},
    ("networking.k8s.io", "networkpolicies"): APPLIED | {"delete"},
    ("autoscaling", "horizontalpodautoscalers"): APPLIED | {"delete"},
    ("", "pods"): {"list", "watch"},
    ("", "namespaces"): {"list", "watch"},
    ("events.k8s.io", "events"): {"create"},
}


def rules(role: Manifest) -> dict[tuple[str, str], set[str]]:
    """Verbs by API group and resource."""
    table: dict[tuple[str, str], set[str]] = {}
    for rule in role["rules"]:
        assert set(rule) - {"resourceNames"} == {"apiGroups", "resources", "verbs"}
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                table.setdefault((group, resource), set()).update(rule["verbs"])
    return table


def test_rights_are_those_of_the_table() -> None:
    manifests = render()
    roles = {name: rules(role) for name, role in of_kind(manifests, "ClusterRole").items()}
    assert roles == {
        "motet-system:motet-operator": OPERATOR_RULES,
        "motet-system:motet-gateway": GATEWAY_RULES,
        "motet-system:motet-metrics-reader": METRICS_READER_RULES,
    }
    assert {name: rules(role) for name, role in of_kind(manifests, "Role").items()} == {
        "motet-metrics-api": METRICS_API_RULES,
        "motet-operator": OWN_NAMESPACE_RULES,
    }


def test_no_wildcard() -> None:
    manifests = render()
    for role in [*of_kind(manifests, "ClusterRole").values(), *of_kind(manifests, "Role").values()]:
        for (group, resource), verbs in rules(role).items():
            assert "*" not in {group, resource, *verbs}


def test_who_is_bound_to_what() -> None:
    manifests = render()
    bound = {
        (subject["name"], item["roleRef"]["name"], item["metadata"].get("namespace"))
        for kind in ("ClusterRoleBinding", "RoleBinding")
        for item in of_kind(manifests, kind).values()
        for subject in item["subjects"]
    }
    assert bound == {
        ("motet-operator", "motet-system:motet-operator", None),
        ("motet-operator", "motet-operator", "motet-system"),
        ("motet-gateway", "motet-system:motet-gateway", None),
        ("motet-metrics-api", "motet-metrics-api", "motet-system"),
        ("motet-metrics-api", "system:auth-delegator", None),
        ("motet-metrics-api", "extension-apiserver-authentication-reader", "kube-system"),
        ("horizontal-pod-autoscaler", "motet-system:motet-metrics-reader", None),
    }


def test_each_part_has_an_account_of_its_own() -> None:
    manifests = render()
    accounts = {
        name: item["spec"]["template"]["spec"]["serviceAccountName"]
        for name, item in of_kind(manifests, "Deployment").items()
    }
    parts = ("motet-operator", "motet-metrics-api", "motet-gateway", "motet-store")
    assert accounts == {name: name for name in parts}
    assert set(of_kind(manifests, "ServiceAccount")) == set(accounts)


def test_pods_meet_the_restricted_standard() -> None:
    manifests = render()
    for item in of_kind(manifests, "Deployment").values():
        pod = item["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert all("hostPath" not in volume for volume in pod.get("volumes", []))
    for container in containers(manifests).values():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_liveness_and_readiness_are_asked_apart_and_a_slow_start_is_no_hang() -> None:
    for container in containers(render()).values():
        live, ready = container["livenessProbe"]["httpGet"], container["readinessProbe"]["httpGet"]
        assert (live["path"], ready["path"]) == ("/livez", "/readyz")
        # A slow start is not a hang: liveness counts from the first success of the start-up probe on.
        start = container["startupProbe"]
        assert start["periodSeconds"] * start["failureThreshold"] >= 60
        assert {live["port"], ready["port"]} <= {port["name"] for port in container["ports"]}


def test_every_container_says_what_it_needs() -> None:
    for container in containers(render()).values():
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]


def test_no_lease_but_its_own_can_be_read_or_changed() -> None:
    role = of_kind(render(), "Role")["motet-operator"]
    leases = [rule for rule in role["rules"] if rule["resources"] == ["leases"]]
    named = {verb: rule.get("resourceNames") for rule in leases for verb in rule["verbs"]}
    assert named == {"create": None, "get": ["motet-operator"], "update": ["motet-operator"]}


def test_crds_are_the_generated_ones() -> None:
    generated = {path.name: path.read_text() for path in (CHART.parents[1] / "crds").glob("*.yaml")}
    assert generated
    assert {path.name: path.read_text() for path in (CHART / "crds").glob("*.yaml")} == generated
    assert {yaml.safe_load(text)["kind"] for text in generated.values()} == {"CustomResourceDefinition"}
