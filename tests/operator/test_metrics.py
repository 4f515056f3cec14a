"""Every metric of the operator is documented."""

from pathlib import Path

from prometheus_client import CollectorRegistry

from motet_operator.kube.index import Index
from motet_operator.metrics import Metrics
from motet_operator.running.condition_metrics import ConditionCollector

PAGE = Path(__file__).parents[2] / "docs" / "operator.md"


def test_every_metric_is_documented() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    registry.register(ConditionCollector(Index(), lambda: True, 1))
    suffix = {"counter": "_total"}
    names = [family.name + suffix.get(family.type, "") for family in registry.collect()]
    assert len(names) == 12
    assert [name for name in names if f"`{name}`" not in PAGE.read_text()] == []
