"""Counts in sliding windows, with time in hand."""

import pytest

from motet_api.wire import LATENCY_BOUNDS_MS
from motet_gateway.outcome_windows import Window


@pytest.mark.parametrize(
    ("age", "seconds", "counted"),
    [(0, 5, 1), (4, 5, 1), (12, 5, 0), (59, 60, 1), (70, 60, 0), (299, 300, 1), (320, 300, 0), (320, 600, 1)],
)
def test_a_window_reaches_back_as_far_as_asked(age: float, seconds: float, counted: int) -> None:
    window = Window()
    window.answered(10_000, 0.1, failed=True)
    total = window.sum(10_000 + age, seconds)
    assert (total.requests, total.errors) == (counted, counted)


def test_an_hour_is_the_most_that_is_kept() -> None:
    window = Window()
    for minute in range(180):
        window.answered(minute * 60, 0.1, failed=False)
    assert window.sum(179 * 60, 3600).requests in {60, 61}
    assert not window.expired(179 * 60)
    assert window.expired(179 * 60 + 3700)


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0.0, 0), (0.010, 0), (0.0101, 1), (0.75, 7), (60.0, 16), (61.0, len(LATENCY_BOUNDS_MS))]
)
def test_latency_is_counted_by_the_bounds_of_the_contract(seconds: float, bucket: int) -> None:
    window = Window()
    window.answered(0, seconds, failed=False)
    latency = window.sum(0, 60).latency
    assert (latency[bucket], sum(latency), len(latency)) == (1, 1, len(LATENCY_BOUNDS_MS) + 1)


def test_comparisons_without_probabilities_are_not_scored() -> None:
    window = Window()
    window.compared(0, agreed=True, drift=None)
    window.compared(0, agreed=False, drift=0.25)
    total = window.sum(1, 60)
    assert (total.compared, total.agreed, total.scored, total.drift_sum) == (2, 1, 1, 0.25)
