"""What is counted under which names, and that removed names go."""

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from motet_gateway.dispatch import Dispatcher
from motet_gateway.exchange import Exchange
from motet_gateway.fleet import Fleet
from motet_gateway.metrics import Metrics, QueueCollector
from motet_gateway.resolve import Route
from motet_gateway.routing import Routing
from tests.gateway.factories import adapter, model, table

BASE = Route(model())
V1, V2 = (Route(model(), adapter(versions=("v1", "v2")), version) for version in ("v1", "v2"))


def observed(*exchanges: Exchange) -> tuple[Metrics, CollectorRegistry]:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    for exchange in exchanges:
        metrics.observe(exchange, started=1.0, now=3.0)
    return metrics, registry


def counted(registry: CollectorRegistry, name: str = "requests_total") -> dict[tuple[str, str, str], float]:
    """Values by adapter, version and code."""
    return {
        (sample.labels["adapter"], sample.labels["version"], sample.labels.get("code", "")): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == f"motet_gateway_{name}"
    }


@pytest.mark.parametrize(
    ("exchange", "code"),
    [
        (Exchange("id", route=V1, status=200), "200"),
        (Exchange("id", route=V1, status=200, outcome=499), "499"),
        (Exchange("id", route=V1), "500"),
    ],
)
def test_a_request_is_counted_by_what_became_of_it(exchange: Exchange, code: str) -> None:
    _, registry = observed(exchange)
    assert counted(registry) == {("churn", "v1", code): 1}


def test_the_base_and_the_unresolved_have_empty_names_and_probes_are_not_counted() -> None:
    _, registry = observed(
        Exchange("id", route=BASE, status=200, first_byte_at=1.5),
        Exchange("id", status=404),
        Exchange("id", status=200),
    )
    assert counted(registry) == {("", "", "200"): 1, ("", "", "404"): 1}
    assert counted(registry, "first_byte_seconds_sum") == {("", "", ""): 0.5}
    assert counted(registry, "request_seconds_sum") == {("", "", ""): 2.0}


def test_removed_versions_are_dropped_and_can_come_back() -> None:
    metrics, registry = observed(Exchange("id", route=V1, status=200), Exchange("id", route=V2, status=200))
    metrics.prune(table([model()], [adapter(versions=("v2",))]), Fleet())
    assert counted(registry) == {("churn", "v2", "200"): 1}
    assert b'version="v1"' not in generate_latest(registry)
    metrics.observe(Exchange("id", route=V1, status=200), started=1.0, now=2.0)
    assert counted(registry)["churn", "v1", "200"] == 1


def test_copies_are_counted_apart_and_dropped_with_their_version() -> None:
    metrics, registry = observed()
    metrics.mirrored(V2, "answered")
    assert counted(registry, "mirrored_requests_total") == {("churn", "v2", ""): 1}
    assert counted(registry) == {}
    metrics.prune(table([model()], [adapter(versions=("v2",))]), Fleet())
    assert counted(registry, "mirrored_requests_total")
    metrics.prune(table([model()], [adapter(versions=("v1",))]), Fleet())
    assert counted(registry, "mirrored_requests_total") == {}


def test_every_metric_is_documented() -> None:
    _, registry = observed()
    registry.register(QueueCollector(Routing(), Dispatcher(lambda: 0.0)))
    names = {family.name + ("_total" if family.type == "counter" else "") for family in registry.collect()}
    page = (Path(__file__).parents[2] / "docs" / "gateway.md").read_text()
    assert {word.strip("`") for word in page.split() if word.startswith("`motet_gateway_")} == names
