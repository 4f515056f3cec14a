"""Conditions keep the time of their last turn, and nothing else of the past."""

from datetime import timedelta

import pytest

from motet_api.reasons import AdapterReason, ConditionType, Reason
from motet_operator.adapters.version_conditions import BLAMES
from motet_operator.conditions import LONGEST_MESSAGE, Stamp, Verdict, no, same, unknown, yes
from tests.operator.factories import NOW

LATER = NOW + timedelta(hours=1)


@pytest.mark.parametrize(
    ("verdict", "turned"),
    [
        (yes(Reason.READY, "all well"), False),
        (yes(Reason.PODS_AVAILABLE, "said otherwise"), False),
        (no(Reason.PROGRESSING, "no more"), True),
        (unknown(Reason.POD_UNREACHABLE, "who knows"), True),
    ],
)
def test_the_time_moves_with_the_status_only(verdict: Verdict, turned: bool) -> None:
    first = Stamp(1, NOW).condition([], ConditionType.READY, yes(Reason.READY, "all well"))
    second = Stamp(2, LATER).condition([first], ConditionType.READY, verdict)
    assert second.last_transition_time == (LATER if turned else NOW)
    assert (second.reason, second.message, second.observed_generation) == (verdict.reason, verdict.message, 2)


def test_the_time_has_whole_seconds_as_kubernetes_writes_them() -> None:
    odd = NOW.replace(microsecond=123456)
    assert Stamp(1, odd).condition([], ConditionType.READY, yes(Reason.READY, "")).last_transition_time == NOW


def test_another_type_is_not_the_previous_one() -> None:
    first = Stamp(1, NOW).condition([], ConditionType.AVAILABLE, yes(Reason.READY, ""))
    second = Stamp(1, LATER).condition([first], ConditionType.READY, yes(Reason.READY, ""))
    assert second.last_transition_time == LATER


def test_a_message_is_not_endless() -> None:
    made = Stamp(1, NOW).condition([], ConditionType.READY, no(Reason.PROGRESSING, "x" * 100_000))
    assert len(made.message) == LONGEST_MESSAGE


def test_same_ignores_time_and_order_only() -> None:
    ready = Stamp(1, NOW).condition([], ConditionType.READY, yes(Reason.READY, "a"))
    available = Stamp(1, NOW).condition([], ConditionType.AVAILABLE, yes(Reason.PODS_AVAILABLE, "b"))
    later = ready.model_copy(update={"last_transition_time": LATER})
    assert same([ready, available], [available, later])
    for change in ({"message": "c"}, {"reason": "Other"}, {"observed_generation": 2}):
        assert not same([ready], [ready.model_copy(update=change)])
    assert not same([ready], [ready, available])


def test_every_failure_belongs_to_a_condition() -> None:
    assert set(BLAMES) == {reason for reason in AdapterReason if reason.failed}
