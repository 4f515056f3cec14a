"""The chart tells the operator whose pods are whose, in words that the operator understands and the pods carry."""

import pytest

from motet_operator.command_line import make_parser
from motet_operator.installation import Peers, PodSelection
from motet_operator.installation_options import installation_of
from tests.chart.rendering import NAMESPACE, Manifest, containers, of_kind, refusal, render


def peers(manifests: list[Manifest], name: str = "motet-operator") -> Peers | None:
    return installation_of(make_parser().parse_args(containers(manifests)[name]["args"])).peers


def selects(selection: PodSelection, manifests: list[Manifest]) -> list[str]:
    """Deployments whose pods are selected."""
    return [
        name
        for name, item in of_kind(manifests, "Deployment").items()
        if selection.labels.items() <= item["spec"]["template"]["metadata"]["labels"].items()
    ]


@pytest.mark.parametrize("release", ["motet", "blue"])
def test_gateway_and_operator_are_named_by_labels_that_their_pods_have(release: str) -> None:
    manifests = render(release=release)
    name = "motet" if release == "motet" else "blue-motet"
    found = peers(manifests, f"{name}-operator")
    assert found is not None
    assert {found.gateway.namespace, found.operator.namespace} == {NAMESPACE}
    assert selects(found.gateway, manifests) == [f"{name}-gateway"]
    assert selects(found.operator, manifests) == [f"{name}-operator"]
    assert found.metrics_namespace == ""


def test_the_namespace_that_scrapes_is_passed_on() -> None:
    found = peers(render({"networkPolicies": {"metricsNamespace": "monitoring"}}))
    assert found is not None
    assert found.metrics_namespace == "monitoring"


def test_they_can_be_switched_off() -> None:
    assert peers(render({"networkPolicies": {"enabled": False}})) is None


def test_what_is_no_namespace_is_refused() -> None:
    assert "metricsNamespace" in refusal({"networkPolicies": {"metricsNamespace": "My Namespace"}})
