"""Sums over gateways, quantiles of their histograms, and since when they are asked."""

from datetime import timedelta
from typing import Any

import pytest

from motet_api.wire import LATENCY_BOUNDS_MS, AdapterOutcome, VersionOutcome
from motet_operator.adapters.evidence import merge, quantile
from motet_operator.adapters.home import span_of
from motet_operator.keys import Kind
from motet_operator.views import Adapter, Declared, read
from tests.operator.factories import NOW, raw_adapter


def outcome(*versions: VersionOutcome) -> AdapterOutcome:
    return AdapterOutcome(namespace="team", name="churn", versions=list(versions))


def histogram(**counts: int) -> list[int]:
    found = [0] * (len(LATENCY_BOUNDS_MS) + 1)
    for index, count in counts.items():
        found[int(index.removeprefix("at"))] = count
    return found


def test_gateways_are_summed_by_version() -> None:
    first = outcome(VersionOutcome(version="v1", requests=3, errors=1, latency=histogram(at0=2), in_flight=1))
    second = outcome(
        VersionOutcome(version="v1", requests=4, latency=histogram(at0=3, at2=1), in_flight=2, drift_sum=0.5),
        VersionOutcome(version="v2", requests=1),
    )
    merged = merge([first, second])
    assert merged.complete
    v1 = merged.of("v1")
    assert (v1.requests, v1.errors, v1.in_flight, v1.drift_sum) == (7, 1, 3, 0.5)
    assert v1.latency[:3] == [5, 0, 1]
    assert merged.of("v2").requests == 1
    assert merged.of("v3").requests == 0


def test_a_gateway_that_did_not_answer_makes_it_incomplete() -> None:
    assert not merge([outcome(), None]).complete
    assert merge([]).complete


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (histogram(), 0.0),
        (histogram(at0=100), 9.5),
        (histogram(at0=90, at3=10), 75.0),
        (histogram(**{f"at{len(LATENCY_BOUNDS_MS)}": 10}), 117_000.0),
    ],
    ids=["nothing", "one bucket", "two buckets", "above all bounds"],
)
def test_quantile(counts: list[int], expected: float) -> None:
    assert quantile(counts, 0.95) == pytest.approx(expected)


def judged(age: float | None) -> Adapter:
    """An adapter with a rollout whose step began so long ago, or has yet to begin."""
    rollout: dict[str, Any] = {"key": "k"}
    if age is not None:
        rollout["stepStarted"] = (NOW - timedelta(seconds=age)).isoformat()
    raw = raw_adapter(status={"rollout": rollout})
    raw["spec"]["rollout"] = {"steps": [{"weight": 10, "bakeSeconds": 604_800}], "limits": {"errorPercent": 1}}
    view = read(Kind.LORA_ADAPTER, raw)
    assert isinstance(view, Declared)
    return view


@pytest.mark.parametrize(
    ("age", "seconds"), [(None, None), (0, 0), (0.9, 0), (1, 0), (61, 60), (604_800, 604_799), (-60, 0)]
)
def test_gateways_are_asked_of_nothing_before_the_step(age: float | None, seconds: float | None) -> None:
    assert span_of(judged(age), NOW) == seconds
