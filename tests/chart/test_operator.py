"""The operator's Deployment: one replica works, another stands by, and neither a drain nor an update takes both."""

from motet_operator.command_line import make_parser
from motet_operator.running.lease import LeaseName
from tests.chart.rendering import containers, of_kind, render


def test_two_replicas_on_two_nodes_if_there_are() -> None:
    manifests = render()
    spec = of_kind(manifests, "Deployment")["motet-operator"]["spec"]
    assert spec["replicas"] == 2
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 1}}
    (term,) = spec["template"]["spec"]["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert term["podAffinityTerm"]["topologyKey"] == "kubernetes.io/hostname"
    labels = spec["template"]["metadata"]["labels"]
    assert term["podAffinityTerm"]["labelSelector"]["matchLabels"].items() <= labels.items()
    budget = of_kind(manifests, "PodDisruptionBudget")["motet-operator"]["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["selector"]["matchLabels"].items() <= labels.items()


def test_one_replica_has_no_budget() -> None:
    manifests = render({"operator": {"replicas": 1}})
    assert of_kind(manifests, "Deployment")["motet-operator"]["spec"]["replicas"] == 1
    assert "motet-operator" not in of_kind(manifests, "PodDisruptionBudget")


def test_the_operator_understands_what_it_is_told_and_holds_the_lease_that_it_may() -> None:
    manifests = render(release="blue")
    options = make_parser().parse_args(containers(manifests)["blue-motet-operator"]["args"])
    assert options.command == "run"
    assert options.lease == LeaseName("motet-system", "blue-motet-operator")
    names = [rule.get("resourceNames") for rule in of_kind(manifests, "Role")["blue-motet-operator"]["rules"]]
    assert ["blue-motet-operator"] in names
    assert options.admin_host == "127.0.0.1"
    ports = {port["containerPort"] for port in containers(manifests)["blue-motet-operator"]["ports"]}
    assert options.admin_port not in ports
    assert {options.health_port, options.metrics_port} <= ports


def test_passes_under_way_have_the_time_to_end() -> None:
    from motet_operator.operate import DRAIN_SECONDS

    pod = of_kind(render(), "Deployment")["motet-operator"]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= DRAIN_SECONDS + 10
