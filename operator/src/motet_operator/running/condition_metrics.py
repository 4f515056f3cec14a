"""Every condition of every object as a gauge, read from the index when somebody asks for the metrics.

Nothing is kept: an object that is gone has no series. Only the replica that leads shows them, so that no alert counts
an object twice.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from motet_operator.keys import Kind
from motet_operator.metrics import CONDITION, CONDITIONS_LEFT_OUT
from motet_operator.views import Declared, View

KINDS = (Kind.MODEL_DEPLOYMENT, Kind.LORA_ADAPTER)
"""In the order in which they get their series, should there be too many."""


class ViewLister(Protocol):
    """Lists what is known."""

    def views(self, kind: Kind) -> Iterable[View]:
        """All of a kind."""
        ...


class ConditionCollector(Collector):
    """The gauges: 1 for the status that a condition has now, and no series for those that it has not."""

    def __init__(self, index: ViewLister, leads: Callable[[], bool], limit: int) -> None:
        """`limit` is the number of series beyond which objects are left out, whole."""
        self._index = index
        self._leads = leads
        self._limit = limit

    def describe(self) -> Iterator[Metric]:
        """Names, without reading the index."""
        return iter(_families())

    def collect(self) -> Iterator[Metric]:
        """The series as of now."""
        gauges, left_out = _families()
        room, missing = self._limit, dict.fromkeys(KINDS, 0)
        for kind in KINDS if self._leads() else ():
            for view in self._index.views(kind):
                if not isinstance(view, Declared) or view.status is None:
                    continue
                conditions = view.status.conditions
                if len(conditions) > room:
                    missing[kind] += 1
                    continue
                room -= len(conditions)
                for entry in conditions:
                    labels = [kind, view.meta.namespace, view.meta.name, entry.type, entry.status]
                    gauges.add_metric(labels, 1)
        for kind, count in missing.items():
            left_out.add_metric([kind], count)
        return iter((gauges, left_out))


def _families() -> tuple[GaugeMetricFamily, GaugeMetricFamily]:
    return (
        GaugeMetricFamily(
            CONDITION,
            "1 for the status that a condition has now.",
            labels=["kind", "namespace", "name", "type", "status"],
        ),
        GaugeMetricFamily(
            CONDITIONS_LEFT_OUT,
            "Objects without motet_condition: more than --condition-metrics-limit.",
            labels=["kind"],
        ),
    )
