"""Metrics are documented, and those of adapters that are gone go too."""

from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from motet_api.identity import AdapterId
from motet_runtime.engine.thread import EngineGauges
from motet_runtime.metrics import RuntimeMetrics

PAGE = Path(__file__).parents[2] / "docs" / "runtime.md"


def test_every_metric_is_documented() -> None:
    registry = CollectorRegistry()
    RuntimeMetrics(registry)
    suffix = {"counter": "_total"}
    names = [family.name + suffix.get(family.type, "") for family in registry.collect()]
    assert len(names) > 10
    assert [name for name in names if f"`{name}`" not in PAGE.read_text()] == []


def test_what_the_engine_counts_only_grows_and_is_there_before_it_has_begun() -> None:
    metrics = RuntimeMetrics(CollectorRegistry())
    text = generate_latest(metrics.registry).decode()
    for name in ("prefix_tokens", "preemptions", "adapter_slot_changes"):
        assert f"# TYPE motet_runtime_{name}_total counter" in text
    assert "vllm:num_requests_running 0.0" in text
    gauges = EngineGauges(kv_blocks=10, kv_blocks_held=3, prefix_tokens=100, prefix_hit_tokens=60, slot_evictions=2)
    metrics.follow(gauges)
    value = metrics.registry.get_sample_value
    assert value("motet_runtime_kv_blocks", {"use": "held"}) == 3
    assert value("motet_runtime_kv_blocks", {"use": "available"}) == 7
    assert value("motet_runtime_prefix_tokens_total", {"cache": "miss"}) == 40
    gauges.prefix_hit_tokens = 70  # read between the engine's two writes
    assert value("motet_runtime_prefix_tokens_total", {"cache": "miss"}) == 40
    gauges.prefix_tokens = 130
    assert value("motet_runtime_prefix_tokens_total", {"cache": "hit"}) == 70
    assert value("motet_runtime_prefix_tokens_total", {"cache": "miss"}) == 60
    assert value("motet_runtime_adapter_slot_changes_total", {"change": "eviction"}) == 2


def test_series_of_adapters_that_are_gone_are_dropped() -> None:
    metrics = RuntimeMetrics(CollectorRegistry())
    for adapter in ("", "a@v1", "b@v1"):
        metrics.generated_tokens.labels(adapter).inc()
    metrics.forget_adapters([AdapterId("a@v1")])
    text = generate_latest(metrics.registry).decode()
    assert 'tokens_total{adapter="a@v1"}' in text
    assert 'tokens_total{adapter=""}' in text
    assert "b@v1" not in text
