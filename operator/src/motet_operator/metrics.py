"""The operator's metrics; every name is here."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from motet_operator.keys import ModelKey

_PASS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15)
_CALL_BUCKETS = (0.005, 0.025, 0.1, 0.5, 2.5, 15)

CONDITION = "motet_condition"
CONDITIONS_LEFT_OUT = "motet_condition_objects_left_out"


class ApiMetrics:
    """Counts calls of the API server."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._api = Counter(
            "motet_operator_api_calls",
            "Calls of the API server (watches left out) by verb, resource and status code, 0 if it did not answer.",
            ["verb", "resource", "code"],
            registry=registry,
        )
        self._api_seconds = Histogram(
            "motet_operator_api_seconds",
            "Seconds of one call of the API server, waiting for its turn left out.",
            ["verb"],
            buckets=_CALL_BUCKETS,
            registry=registry,
        )
        self._api_waits = Counter(
            "motet_operator_api_wait_seconds",
            "Seconds that calls of the API server waited for their turn (--api-qps, or because it asked for it).",
            registry=registry,
        )

    def api_called(self, verb: str, resource: str, code: int, seconds: float) -> None:
        """A call of the API server ended."""
        self._api.labels(verb, resource, str(code)).inc()
        self._api_seconds.labels(verb).observe(seconds)

    def api_waited(self, seconds: float) -> None:
        """A call waited for its turn."""
        self._api_waits.inc(seconds)


class Metrics(ApiMetrics):
    """Counts passes, watches and calls of runtime pods too."""

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
        self._wait = Gauge(
            "motet_operator_queue_wait_seconds",
            "For how long the first key in the queue has been waiting for a worker; 0 on standby.",
            registry=registry,
        )
        self._leader = Gauge("motet_operator_leader", "1 in the replica that is at work, else 0.", registry=registry)
        self._watches = Counter(
            "motet_operator_watch_requests",
            "Requests that begin a watch anew: list (its place was lost, or never there) or watch (it goes on).",
            ["verb", "resource"],
            registry=registry,
        )
        self._runtime = Counter(
            "motet_operator_runtime_calls",
            "Calls of runtime pods by method, and whether they answered.",
            ["method", "answered"],
            registry=registry,
        )

    def measure_queue(self, depth: Callable[[], int], longest_wait_seconds: Callable[[], float]) -> None:
        """Take the queue's state from here, whenever somebody reads it."""
        self._depth.set_function(depth)
        self._wait.set_function(longest_wait_seconds)

    def measure_leadership(self, leads: Callable[[], bool]) -> None:
        """Take from here whether this replica is at work."""
        self._leader.set_function(leads)

    def pass_ended(self, key: ModelKey, result: str, seconds: float, error: str) -> None:
        """A pass ended."""
        self._passes.labels(result).inc()
        self._seconds.observe(seconds)

    def watch_requested(self, verb: str, resource: str) -> None:
        """A watch begins anew."""
        self._watches.labels(verb, resource).inc()

    def runtime_called(self, method: str, answered: bool) -> None:
        """A call of a runtime pod ended."""
        self._runtime.labels(method, str(answered).lower()).inc()
