"""The operator's metrics; every name is here."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_PASS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15)


class ApiMetrics:
    """Counts calls of the API server."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._api = Counter(
            "motet_operator_api_calls",
            "Calls of the API server (watches left out) by verb and status code, 0 if it did not answer.",
            ["verb", "code"],
            registry=registry,
        )

    def api_called(self, verb: str, code: int) -> None:
        """A call of the API server ended."""
        self._api.labels(verb, str(code)).inc()


class Metrics(ApiMetrics):
    """Counts passes and calls of runtime pods too."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self._passes = Counter(
            "motet_operator_reconciles",
            "Passes over one ModelDeployment: done, retry (a known error) or failed (an unexpected one).",
            ["result"],
            registry=registry,
        )
        self._seconds = Histogram(
            "motet_operator_reconcile_seconds", "Seconds of one pass.", buckets=_PASS_BUCKETS, registry=registry
        )
        self._depth = Gauge("motet_operator_queue_depth", "Keys that wait for a worker.", registry=registry)
        self._runtime = Counter(
            "motet_operator_runtime_calls",
            "Calls of runtime pods by method, and whether they answered.",
            ["method", "answered"],
            registry=registry,
        )

    def measure_depth(self, depth: Callable[[], int]) -> None:
        """Take the queue's depth from here, whenever somebody reads it."""
        self._depth.set_function(depth)

    def pass_ended(self, result: str, seconds: float) -> None:
        """A pass ended."""
        self._passes.labels(result).inc()
        self._seconds.observe(seconds)

    def runtime_called(self, method: str, answered: bool) -> None:
        """A call of a runtime pod ended."""
        self._runtime.labels(method, str(answered).lower()).inc()
