"""Metrics are documented, and those of adapters that are gone go too."""

from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from motet_api.identity import AdapterId
from motet_runtime.metrics import RuntimeMetrics

PAGE = Path(__file__).parents[2] / "docs" / "runtime.md"


def test_every_metric_is_documented() -> None:
    registry = CollectorRegistry()
    RuntimeMetrics(registry)
    suffix = {"counter": "_total"}
    names = [family.name + suffix.get(family.type, "") for family in registry.collect()]
    assert len(names) > 10
    assert [name for name in names if f"`{name}`" not in PAGE.read_text()] == []


def test_series_of_adapters_that_are_gone_are_dropped() -> None:
    metrics = RuntimeMetrics(CollectorRegistry())
    for adapter in ("", "a@v1", "b@v1"):
        metrics.generated_tokens.labels(adapter).inc()
    metrics.forget_adapters([AdapterId("a@v1")])
    text = generate_latest(metrics.registry).decode()
    assert 'tokens_total{adapter="a@v1"}' in text
    assert 'tokens_total{adapter=""}' in text
    assert "b@v1" not in text
