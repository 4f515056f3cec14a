"""When a version that has left spec may go."""

from datetime import timedelta
from typing import Any

import pytest

from motet_api.loraadapter import MOST_VERSIONS, ModelRef, TrafficTarget, VersionStatus
from motet_api.objects import AdapterSource, Condition, ConditionStatus
from motet_api.reasons import AdapterReason, ConditionType, Reason
from motet_api.wire import AdapterOutcome, VersionOutcome
from motet_operator.adapters.residency import Standing
from motet_operator.adapters.retiring import GRACE, Answers, bounded, retirement
from motet_operator.adapters.versions import Version
from motet_operator.conditions import no, unknown, yes
from tests.operator.factories import KEY, NOW

TOLD = [TrafficTarget(version="v2", weight=1)]
HELD = Standing(yes(AdapterReason.RESIDENT, ""), ready_on=1, pods=1)
ABSENT = Standing(no(AdapterReason.LOADING, ""), ready_on=0, pods=1)
SILENT = Standing(unknown(Reason.POD_UNREACHABLE, ""), ready_on=0, pods=1)


def version(seconds_ago: float | None = None, status: ConditionStatus = ConditionStatus.TRUE) -> Version:
    """v1, which is not in spec; retiring since so many seconds."""
    conditions = []
    if seconds_ago is not None:
        when = NOW - timedelta(seconds=seconds_ago)
        conditions = [
            Condition(type=ConditionType.RETIRING, status=status, last_transition_time=when, reason="Draining")
        ]
    source = AdapterSource(uri="pvc://adapters/x")
    recorded = VersionStatus(name="v1", source=source, conditions=conditions)
    return Version("v1", source, ModelRef(name=KEY.name), KEY, False, recorded)


def outcome(following: dict[str, int] | None, **in_flight: int) -> AdapterOutcome:
    """What a gateway says."""
    targets = (
        [TrafficTarget(version=name, weight=weight) for name, weight in following.items()]
        if following is not None
        else None
    )
    versions = [VersionOutcome(version=name, in_flight=count) for name, count in in_flight.items()]
    return AdapterOutcome(namespace="speech", name="voice", following=targets, versions=versions)


NEW = outcome({"v2": 1}, v1=0, v2=3)
ROWS: dict[str, tuple[Version, Standing, Answers | None, bool]] = {
    "every gateway follows and is done": (version(1), HELD, (NEW, outcome({"v2": 1, "v1": 0})), True),
    "one is at it": (version(99), HELD, (NEW, outcome({"v2": 1}, v1=1)), False),
    "one follows the old split": (version(99), HELD, (NEW, outcome({"v1": 1})), False),
    "one follows an older split by a hair": (version(99), HELD, (NEW, outcome({"v2": 99_999, "v1": 1})), False),
    "one writes the shares in other numbers": (version(1), HELD, (NEW, outcome({"v2": 100})), True),
    "one is silent": (version(99), HELD, (NEW, None), False),
    "one knows no such adapter": (version(1), HELD, (NEW, outcome(None)), True),
    "no gateway is known: it has just left": (version(), HELD, None, False),
    "no gateway is known: a while ago": (version(GRACE.seconds - 1), HELD, None, False),
    "no gateway is known: long ago": (version(GRACE.seconds), HELD, None, True),
    "no gateway is up": (version(1), HELD, (), False),
    "no gateway is up, long ago": (version(GRACE.seconds), HELD, (), True),
    "the condition has not been True yet": (version(99, ConditionStatus.FALSE), HELD, None, False),
    "the clock was set back": (version(-3600), HELD, None, True),
    "no pod holds it just now, and a gateway follows it": (version(), ABSENT, (outcome({"v1": 1}),), False),
    "no pod holds it, and a gateway is silent": (version(), ABSENT, (None,), False),
    "no pod holds it, and no gateway is known": (version(), ABSENT, None, True),
    "a pod is silent, and no gateway is known": (version(), SILENT, None, False),
}


@pytest.mark.parametrize(("given", "standing", "answers", "over"), ROWS.values(), ids=ROWS)
def test_rows(given: Version, standing: Standing, answers: Answers | None, over: bool) -> None:
    found = retirement(given, {"v2"}, TOLD, standing, answers, NOW)
    assert found.over is over
    assert (found.verdict.status, found.verdict.reason) == ("True", "Draining")


@pytest.mark.parametrize("answers", [None, (), (NEW,), (None,)])
def test_a_version_that_is_needed_stays(answers: Any) -> None:
    for standing in (HELD, ABSENT, SILENT):
        found = retirement(version(), {"v1", "v2"}, TOLD, standing, answers, NOW)
        assert not found.over
        assert (found.verdict.status, found.verdict.reason) == ("False", "Waiting")


def test_what_has_retired_longest_goes_when_status_is_full() -> None:
    serving = [VersionStatus(name=f"v{number}") for number in range(MOST_VERSIONS - 2)]
    retiring = []
    for name, seconds_ago in (("b", 20), ("a", 30), ("d", 1), ("c", 10)):
        recorded = version(seconds_ago).recorded
        assert recorded is not None
        retiring.append(recorded.model_copy(update={"name": name}))
    assert [entry.name for entry in bounded([*retiring, *serving])][:3] == ["d", "c", "v0"]
    assert bounded([*retiring[:2], *serving]) == [*retiring[:2], *serving]
