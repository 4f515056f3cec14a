"""What the gateway counts. Label values are names of objects that exist, never text from a request.

A request that named nothing that exists is counted with empty labels, so nobody can fill the registry with made-up
names; the series of adapter versions that were removed are dropped.
"""

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from motet_gateway.dispatch import Dispatcher
from motet_gateway.exchange import Exchange
from motet_gateway.fleet import Fleet
from motet_gateway.resolve import Route
from motet_gateway.routing import Routing
from motet_gateway.table import ObjectKey, Pod, Table

_ROUTE_LABELS: Final = ("namespace", "model", "adapter", "version")
_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)

Labels = tuple[str, str, str, str]
"""Values of `_ROUTE_LABELS`; adapter and version are empty for the base."""


def labels_of(route: Route | None) -> Labels:
    """The label values of a route; all empty for a request that was not resolved."""
    if route is None:
        return ("", "", "", "")
    return (*route.model.key, route.adapter_name, route.version or "")


class Metrics:
    """The counters and histograms, in the registry that is given."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "motet_gateway_requests",
            "Requests by what was asked and how it ended (499: the client left).",
            (*_ROUTE_LABELS, "code"),
            registry=registry,
        )
        self._seconds = Histogram(
            "motet_gateway_request_seconds",
            "From the request's arrival to the end of its answer.",
            _ROUTE_LABELS,
            buckets=_BUCKETS,
            registry=registry,
        )
        self._first_byte = Histogram(
            "motet_gateway_first_byte_seconds",
            "From the request's arrival to the first byte of the answer's body.",
            _ROUTE_LABELS,
            buckets=_BUCKETS,
            registry=registry,
        )
        self._retries = Counter(
            "motet_gateway_retries",
            "Requests sent to another pod because the first did not take them.",
            ("namespace", "model", "cause"),
            registry=registry,
        )
        self._mirrored = Counter(
            "motet_gateway_mirrored_requests",
            "Copies of requests by what became of them: answered, failed, or dropped (never sent, or not taken).",
            (*_ROUTE_LABELS, "outcome"),
            registry=registry,
        )
        self._polls_failed = Counter(
            "motet_gateway_residency_polls_failed",
            "Pods that did not say what they hold when asked.",
            ("namespace", "model"),
            registry=registry,
        )
        self._source_failures = Counter(
            "motet_gateway_source_failures",
            "Failed reads of the routing table's source; the last good table stays in use.",
            ("source",),
            registry=registry,
        )
        self._faults = Counter("motet_gateway_faults", "Requests that ended in a fault of ours.", registry=registry)
        self._seen: set[tuple[Labels, str]] = set()
        self._copied: set[tuple[Labels, str]] = set()
        self._pruned: Table | None = None

    def observe(self, exchange: Exchange, started: float, now: float) -> None:
        """A request is over. One that succeeded without a model (a list, a probe) is not counted."""
        code = str(exchange.outcome or exchange.status or 500)
        if exchange.route is None and code.startswith("2"):
            return
        labels = labels_of(exchange.route)
        self._seen.add((labels, code))
        self._requests.labels(*labels, code).inc()
        if exchange.route is None:
            return
        self._seconds.labels(*labels).observe(now - started)
        if exchange.first_byte_at is not None:
            self._first_byte.labels(*labels).observe(exchange.first_byte_at - started)

    def retried(self, route: Route, cause: str) -> None:
        """A pod did not take a request; `cause` is one of a few words of the proxy."""
        self._retries.labels(*route.model.key, cause).inc()

    def mirrored(self, route: Route, outcome: str) -> None:
        """A copy of a request is over; `outcome` is one of three words of the mirroring."""
        labels = labels_of(route)
        self._copied.add((labels, outcome))
        self._mirrored.labels(*labels, outcome).inc()

    def poll_failed(self, pod: Pod) -> None:
        """A pod did not say what it holds."""
        self._polls_failed.labels(*pod.model).inc()

    def source_failed(self, source: str) -> None:
        """The table's source could not be read."""
        self._source_failures.labels(source).inc()

    def fault(self) -> None:
        """A request ended in a fault of ours."""
        self._faults.inc()

    def prune(self, table: Table, _fleet: Fleet) -> None:
        """Drop the series of what does not exist any more."""
        if table is self._pruned:
            return
        self._pruned = table
        gone = {(labels, code) for labels, code in self._seen if not _exists(labels, table)}
        for labels, code in gone:
            self._requests.remove(*labels, code)
        for labels in {labels for labels, _ in gone}:
            self._seconds.remove(*labels)
            self._first_byte.remove(*labels)
        self._seen -= gone
        for labels, outcome in [seen for seen in self._copied if not _exists(seen[0], table)]:
            self._mirrored.remove(*labels, outcome)
            self._copied.discard((labels, outcome))


def _exists(labels: Labels, table: Table) -> bool:
    namespace, model, adapter, version = labels
    key = ObjectKey(namespace, model)
    if not adapter:
        return key in table.models or labels == ("", "", "", "")
    return f"{adapter}@{version}" in table.expected.get(key, ())


class QueueCollector(Collector):
    """Gauges read from the dispatcher when they are scraped, so that they cannot go stale."""

    def __init__(self, routing: Routing, dispatcher: Dispatcher) -> None:
        self._routing = routing
        self._dispatcher = dispatcher

    def collect(self) -> Iterable[Metric]:
        """Waiting and running requests by model, requests in flight and usability by pod."""
        waiting = GaugeMetricFamily(
            "motet_gateway_waiting", "Requests held for a model.", labels=("namespace", "model")
        )
        running = GaugeMetricFamily(
            "motet_gateway_running", "Requests sent to a pod, not yet answered.", labels=("namespace", "model")
        )
        in_flight = GaugeMetricFamily(
            "motet_gateway_pod_in_flight", "Requests on a pod.", labels=("namespace", "model", "pod")
        )
        usable = GaugeMetricFamily(
            "motet_gateway_pod_usable", "1 if the pod gets requests for the base.", labels=("namespace", "model", "pod")
        )
        table, fleet = self._routing.table, self._routing.fleet
        for key in table.models:
            waiting.add_metric([*key], self._dispatcher.waiting(key))
            running.add_metric([*key], self._dispatcher.running(key))
            serving = {pod.key for pod, _ in fleet.serving(key, None)}
            for pod in table.pods.get(key, ()):
                labels = [*key, pod.key.name]
                in_flight.add_metric(labels, self._dispatcher.in_flight(pod.key))
                usable.add_metric(labels, float(pod.key in serving))
        return [waiting, running, in_flight, usable]
