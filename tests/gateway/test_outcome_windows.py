"""Counts in sliding windows, with time in hand."""

import pytest

from motet_api.wire import LATENCY_BOUNDS_MS
from motet_gateway.outcome_windows import Window

HOUR, DAY = 3600, 86_400
BEGAN = 100 * HOUR


@pytest.mark.parametrize(
    ("age", "seconds", "counted"),
    [
        (0, 5, 1),
        (4, 5, 1),
        (12, 5, 0),
        (59, 60, 1),
        (70, 60, 0),
        (299, 300, 1),
        (320, 300, 0),
        (320, 600, 1),
        (HOUR, HOUR + 1, 1),
        (HOUR + 1, HOUR, 0),
        (DAY, DAY + 1, 1),
        (7 * DAY - 1, 7 * DAY, 1),
        (7 * DAY + 1, 7 * DAY, 0),
    ],
)
def test_a_window_reaches_back_as_far_as_asked(age: float, seconds: float, counted: int) -> None:
    window = Window()
    window.answered(BEGAN, 0.1, failed=True)
    total = window.sum(BEGAN + age, seconds)
    assert (total.requests, total.errors) == (counted, counted)


@pytest.mark.parametrize(
    ("asked_later", "lost"), [(0, 0), (60, 5), (299, 5), (600, 60), (HOUR - 10, 60), (2 * HOUR, HOUR), (6 * DAY, HOUR)]
)
@pytest.mark.parametrize("step", [BEGAN + 0.3, BEGAN + 2, BEGAN + 61, BEGAN + 3599])
def test_nothing_of_before_a_step_counts_for_it_and_little_of_after_is_lost(
    step: float, asked_later: float, lost: float
) -> None:
    window = Window()
    window.answered(step - 0.1, 0.1, failed=True)
    window.answered(step + lost, 0.1, failed=False)
    total = window.sum(step + lost + asked_later, lost + asked_later)
    assert (total.errors, total.requests) == (0, 1 if lost else 0)


def test_every_request_of_a_long_bake_counts_once() -> None:
    window = Window()
    for minute in range(0, 24 * 60, 6):
        window.answered(BEGAN + minute * 60, 0.1, failed=True)
    total = window.sum(BEGAN + DAY, DAY)
    assert (total.requests, total.errors, sum(total.latency)) == (240, 240, 240)


def test_a_week_is_the_most_that_is_kept_and_memory_is_bounded() -> None:
    window = Window()
    for minute in range(0, 9 * 24 * 60):
        window.answered(minute * 60, 0.1, failed=False)
    now = 9 * DAY
    assert window.sum(now, 7 * DAY).requests == 7 * 24 * 60
    assert sum(len(ring) for ring in window.rings) <= 7 * 24 + 60 + 300 / 5 + 3
    assert not window.expired(now)
    assert window.expired(now + 7 * DAY + HOUR)


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
