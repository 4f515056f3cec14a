"""The runtime's metrics: names and labels in one place, on an injected registry."""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from motet_api.identity import AdapterId
from motet_runtime.engine.thread import EngineGauges

_STEP_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_REQUEST_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class RuntimeMetrics:
    """All metrics of one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.requests = Counter(
            "motet_runtime_requests", "Requests by route and HTTP status.", ["route", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "motet_runtime_request_seconds",
            "Seconds from request to the end of the answer.",
            ["route"],
            buckets=_REQUEST_BUCKETS,
            registry=registry,
        )
        self.prompt_tokens = Counter(
            "motet_runtime_prompt_tokens",
            "Prompt tokens, by adapter version (empty: the base).",
            ["adapter"],
            registry=registry,
        )
        self.generated_tokens = Counter(
            "motet_runtime_generated_tokens", "Generated tokens, by adapter version.", ["adapter"], registry=registry
        )
        self.step_seconds = Histogram(
            "motet_runtime_step_seconds", "Seconds of one engine step.", buckets=_STEP_BUCKETS, registry=registry
        )
        self.step_tokens = Counter("motet_runtime_step_tokens", "Tokens computed, prompts included.", registry=registry)
        self.step_failures = Counter(
            "motet_runtime_step_failures", "Steps that failed, and with them all their requests.", registry=registry
        )
        self.adapter_load_seconds = Histogram(
            "motet_runtime_adapter_load_seconds",
            "Seconds to fetch, verify and install an adapter.",
            buckets=_REQUEST_BUCKETS,
            registry=registry,
        )
        self.adapter_load_failures = Counter(
            "motet_runtime_adapter_load_failures", "Adapters that could not be loaded.", ["reason"], registry=registry
        )
        self.adapters_resident = Gauge("motet_runtime_adapters_resident", "Adapters that serve.", registry=registry)
        self.adapter_bytes_used = Gauge(
            "motet_runtime_adapter_bytes_used", "Bytes that resident adapters take below the slots.", registry=registry
        )
        self.startup_seconds = Gauge(
            "motet_runtime_startup_seconds",
            "Seconds from process start to the end of a stage.",
            ["stage"],
            registry=registry,
        )
        self._engine = _EngineCollector()
        registry.register(self._engine)

    def follow(self, gauges: EngineGauges) -> None:
        """From now on, report what the engine says of itself; before, it has done nothing."""
        self._engine.gauges = gauges

    def forget_adapters(self, resident: Iterable[AdapterId]) -> None:
        """Drop the series of adapters that are gone, so that versions do not pile up."""
        keep = {"", *resident}
        for counter in (self.prompt_tokens, self.generated_tokens):
            for metric in counter.collect():
                for adapter in {sample.labels["adapter"] for sample in metric.samples} - keep:
                    counter.remove(adapter)


class _EngineCollector(Collector):
    """Reads the engine's own counts when somebody asks."""

    def __init__(self) -> None:
        self.gauges = EngineGauges()
        self._misses = 0

    def collect(self) -> Iterator[Metric]:
        """One family each."""
        gauges = self.gauges
        blocks = {"held": gauges.kv_blocks_held, "available": gauges.kv_blocks - gauges.kv_blocks_held}
        yield _by("use", GaugeMetricFamily, "motet_runtime_kv_blocks", "Blocks of keys and values, by use.", blocks)
        # The two counts are read at two moments; a counter must not go back.
        self._misses = max(self._misses, gauges.prefix_tokens - gauges.prefix_hit_tokens)
        yield _by(
            "cache",
            CounterMetricFamily,
            "motet_runtime_prefix_tokens",
            "Prompt tokens, by whether the prefix cache had them; hit / (hit + miss) is its hit rate.",
            {"hit": gauges.prefix_hit_tokens, "miss": self._misses},
        )
        yield CounterMetricFamily(
            "motet_runtime_preemptions", "Sequences put back for want of blocks.", gauges.preemptions
        )
        yield GaugeMetricFamily("motet_runtime_adapter_slots_used", "Adapters in slots.", gauges.slots_used)
        yield _by(
            "change",
            CounterMetricFamily,
            "motet_runtime_adapter_slot_changes",
            "Adapters copied into slots, and evicted from them for others.",
            {"load": gauges.slot_loads, "eviction": gauges.slot_evictions},
        )
        # vLLM's names, so that what routes or scales by them can do so here too.
        yield GaugeMetricFamily("vllm:num_requests_running", "Requests in the batch.", gauges.running)
        yield GaugeMetricFamily("vllm:num_requests_waiting", "Requests that wait for a place in it.", gauges.waiting)


def _by(
    label: str,
    kind: type[CounterMetricFamily] | type[GaugeMetricFamily],
    name: str,
    text: str,
    values: dict[str, int],
) -> Metric:
    family = kind(name, text, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family
