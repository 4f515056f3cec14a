"""The steps of a rollout, as a table of situations and as whole runs."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motet_api.loraadapter import RolloutAction, RolloutResult, RolloutSpec, RolloutStatus, TrafficTarget
from motet_api.reasons import Reason
from motet_api.wire import LATENCY_BOUNDS_MS, VersionOutcome
from motet_operator.adapters.evidence import Evidence
from motet_operator.adapters.rollout import (
    RolloutPlan,
    Situation,
    judged_since,
    kept_versions,
    plan_rollout,
    shares,
)
from motet_operator.adapters.traffic import same_split

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def split(**weights: int) -> tuple[TrafficTarget, ...]:
    return tuple(TrafficTarget(version=name, weight=weight) for name, weight in weights.items())


def spec(*steps: tuple[int, int], **fields: Any) -> RolloutSpec:
    entries = [{"weight": weight, "bakeSeconds": bake} for weight, bake in steps or [(10, 60), (50, 60)]]
    return RolloutSpec.model_validate({"steps": entries} | fields)


def situation(**fields: Any) -> Situation:
    known: dict[str, Any] = {
        "wanted": split(v8=100),
        "in_effect": split(v7=100),
        "resident": {"v7": True, "v8": True},
        "evidence": None,
        "now": NOW,
    }
    return Situation(**(known | fields))


def seen(complete: bool = True, **fields: Any) -> Evidence:
    latency = [0] * (len(LATENCY_BOUNDS_MS) + 1)
    latency[3] = fields.get("requests", 100)
    outcome = {"version": "v8", "requests": 100, "latency": latency} | fields
    return Evidence(complete, {"v8": VersionOutcome.model_validate(outcome)})


def in_percent(targets: Sequence[TrafficTarget]) -> dict[str, float]:
    return {name: round(float(100 * share), 3) for name, share in shares(targets).items()}


def at_step(step: int, seconds: float, rollout: RolloutSpec, **fields: Any) -> tuple[RolloutStatus, Situation]:
    """A rollout v7 -> v8 whose step has been in effect for so long."""
    began = plan_rollout(rollout, None, situation()).status
    assert began is not None
    status = began.model_copy(update={"step": step, "step_started": NOW - timedelta(seconds=seconds)})
    weight = rollout.steps[step].weight
    return status, situation(in_effect=split(v7=100 - weight, v8=weight), **fields)


def test_without_steps_the_split_is_what_spec_says() -> None:
    plan = plan_rollout(None, None, situation())
    assert (plan.wanted_now, plan.status, plan.verdict.reason) == (split(v8=100), None, Reason.WAITING)
    there = plan_rollout(None, None, situation(in_effect=split(v8=1)))
    assert there.verdict.reason is Reason.ROLLED_OUT


def test_a_new_adapter_has_nothing_to_leave() -> None:
    plan = plan_rollout(spec(), None, situation(in_effect=()))
    assert (plan.wanted_now, plan.status) == (split(v8=100), None)


def test_the_first_step_is_wanted_and_begins_when_it_is_in_effect() -> None:
    first = plan_rollout(spec(), None, situation())
    assert in_percent(first.wanted_now) == {"v7": 90, "v8": 10}
    assert (first.verdict.reason, first.summary) == (Reason.WAITING, "step 1/2 10%")
    assert first.status is not None and first.status.step_started is None
    second = plan_rollout(spec(), first.status, situation(in_effect=first.wanted_now))
    assert second.status is not None and second.status.step_started == NOW
    assert (second.verdict.reason, second.look_again) == (Reason.BAKING, 60)


def test_a_step_does_not_begin_before_its_versions_are_resident() -> None:
    rollout = spec((0, 60), (100, 0), mirrorPercent=50)
    plan = plan_rollout(rollout, None, situation(resident={"v7": True, "v8": False}))
    assert plan.status is not None and plan.status.step_started is None
    assert "v8" in plan.verdict.message
    assert [(target.version, target.percent) for target in plan.mirror] == [("v8", 50)]
    assert in_percent(plan.wanted_now) == {"v7": 100}


def test_a_step_is_passed_when_its_time_is_over() -> None:
    status, now = at_step(0, 59, spec())
    assert in_percent(plan_rollout(spec(), status, now).wanted_now) == {"v7": 90, "v8": 10}
    status, now = at_step(0, 60, spec())
    passed = plan_rollout(spec(), status, now)
    assert in_percent(passed.wanted_now) == {"v7": 50, "v8": 50}
    assert passed.status is not None and (passed.status.step, passed.status.step_started) == (1, None)


def test_after_the_last_step_spec_is_in_effect_and_the_rollout_completed() -> None:
    status, now = at_step(1, 60, spec())
    last = plan_rollout(spec(), status, now)
    assert last.wanted_now == split(v8=100)
    assert last.status is not None and last.status.result is RolloutResult.PROGRESSING
    done = plan_rollout(spec(), last.status, situation(in_effect=split(v8=100)))
    assert done.status is not None and done.status.result is RolloutResult.COMPLETED
    assert (done.verdict.reason, kept_versions(done.status)) == (Reason.ROLLED_OUT, frozenset())
    assert kept_versions(last.status) == {"v7"}
    again = plan_rollout(spec(), done.status, situation(in_effect=split(v8=100)))
    assert again.status == done.status


LIMITS: list[tuple[str, int, dict[str, Any]]] = [
    ("errorPercent", 1, {"errors": 2}),
    ("p95LatencyMilliseconds", 60, {}),
    ("agreementPercent", 95, {"compared": 100, "agreed": 94}),
    ("scoreDriftPercent", 5, {"scored": 100, "drift_sum": 6.0}),
]
LIMIT_NAMES = [name for name, _, _ in LIMITS]


@pytest.mark.parametrize(("limit", "bound", "outcome"), LIMITS, ids=LIMIT_NAMES)
def test_a_limit_that_is_passed_takes_the_rollout_back_and_it_stays_so(
    limit: str, bound: int, outcome: dict[str, Any]
) -> None:
    rollout = spec(limits={limit: bound}, mirrorPercent=10)
    status, now = at_step(0, 10, rollout, evidence=seen(**outcome))
    back = plan_rollout(rollout, status, now)
    assert back.wanted_now == split(v7=100)
    assert (back.verdict.reason, back.mirror, back.back, back.gaining) == (Reason.ROLLED_BACK, (), True, ("v8",))
    assert back.summary == "rolled back, not yet in effect"
    assert "not yet in effect" in back.verdict.message
    assert limit in back.verdict.message and "v8" in back.verdict.message
    assert kept_versions(back.status) == {"v7"}
    later = plan_rollout(rollout, back.status, situation(now=NOW + timedelta(days=1)))
    assert (later.wanted_now, later.status, later.back) == (split(v7=100), back.status, False)
    assert later.summary == "rolled back" and "not yet" not in later.verdict.message


@pytest.mark.parametrize(("limit", "bound", "outcome"), LIMITS, ids=LIMIT_NAMES)
def test_nothing_is_judged_from_too_few_requests(limit: str, bound: int, outcome: dict[str, Any]) -> None:
    rollout = spec(limits={limit: bound, "minRequests": 101}, mirrorPercent=10)
    status, now = at_step(0, 3600, rollout, evidence=seen(**outcome))
    plan = plan_rollout(rollout, status, now)
    assert in_percent(plan.wanted_now) == {"v7": 90, "v8": 10}
    assert plan.verdict.reason is Reason.WAITING and "more" in plan.verdict.message


@pytest.mark.parametrize("evidence", [None, seen(complete=False)], ids=["nobody was asked", "a gateway is silent"])
def test_what_is_unknown_passes_no_step(evidence: Evidence | None) -> None:
    rollout = spec(limits={"errorPercent": 1})
    status, now = at_step(0, 3600, rollout, evidence=evidence)
    plan = plan_rollout(rollout, status, now)
    assert (plan.verdict.reason, plan.status) == (Reason.WAITING, status)
    assert "gateway" in plan.verdict.message


def test_a_silent_gateway_does_not_hide_errors_that_another_has_seen() -> None:
    rollout = spec(limits={"errorPercent": 1})
    status, now = at_step(0, 10, rollout, evidence=seen(complete=False, errors=50))
    assert plan_rollout(rollout, status, now).verdict.reason is Reason.ROLLED_BACK


def test_within_the_limits_the_next_step_follows() -> None:
    rollout = spec(limits={"errorPercent": 1, "p95LatencyMilliseconds": 101})
    status, now = at_step(0, 60, rollout, evidence=seen(errors=1))
    assert in_percent(plan_rollout(rollout, status, now).wanted_now) == {"v7": 50, "v8": 50}


def test_where_nobody_is_left_to_copy_from_nothing_is_compared() -> None:
    rollout = spec((50, 60), (100, 60), limits={"agreementPercent": 95}, mirrorPercent=10)
    status, now = at_step(0, 60, rollout, evidence=seen())
    assert "mirrored requests" in plan_rollout(rollout, status, now).verdict.message
    status, now = at_step(1, 60, rollout, evidence=seen())
    assert plan_rollout(rollout, status, now).wanted_now == split(v8=100)
    assert plan_rollout(rollout, status, now).verdict.reason is not Reason.WAITING


def test_pause_holds_and_still_judges() -> None:
    rollout = spec(limits={"errorPercent": 1}, action="Pause")
    status, now = at_step(0, 3600, spec(limits={"errorPercent": 1}), evidence=seen())
    held = plan_rollout(rollout, status, now)
    assert (held.verdict.reason, in_percent(held.wanted_now)) == (Reason.PAUSED, {"v7": 90, "v8": 10})
    bad = plan_rollout(rollout, status, replace(now, evidence=seen(errors=9)))
    assert bad.verdict.reason is Reason.ROLLED_BACK


def test_promote_goes_to_the_end_even_from_a_rollback() -> None:
    status, now = at_step(0, 1, spec())
    for result in (RolloutResult.PROGRESSING, RolloutResult.ROLLED_BACK):
        plan = plan_rollout(spec(action="Promote"), status.model_copy(update={"result": result}), now)
        assert plan.wanted_now == split(v8=100)
        assert judged_since(spec(action="Promote"), plan.status) is None


def test_abort_goes_back_and_run_starts_again() -> None:
    status, now = at_step(1, 1, spec())
    back = plan_rollout(spec(action="Abort"), status, now)
    assert (back.wanted_now, back.verdict.reason, back.back) == (split(v7=100), Reason.ABORTED, True)
    again = plan_rollout(spec(), back.status, situation())
    assert in_percent(again.wanted_now) == {"v7": 90, "v8": 10}


def test_another_target_starts_from_what_is_in_effect() -> None:
    status, now = at_step(1, 1, spec())
    plan = plan_rollout(spec(), status, replace(now, wanted=split(v9=1)))
    assert in_percent(plan.wanted_now) == {"v7": 45, "v8": 45, "v9": 10}


@pytest.mark.parametrize("result", [RolloutResult.PROGRESSING, RolloutResult.ROLLED_BACK, RolloutResult.ABORTED])
def test_asking_for_the_origin_again_goes_there_at_once_and_is_the_end_of_it(result: RolloutResult) -> None:
    rollout = spec(limits={"errorPercent": 1}, mirrorPercent=10)
    status, now = at_step(0, 1, rollout)
    status = status.model_copy(update={"result": result})
    now = replace(now, wanted=split(v7=1))
    bad = replace(now, evidence=Evidence(True, {"v7": VersionOutcome(version="v7", requests=100, errors=50)}))
    for seen_so_far in (now, bad):
        plan = plan_rollout(rollout, status, seen_so_far)
        assert (plan.wanted_now, plan.back, plan.mirror, plan.status) == (split(v7=1), True, (), status)
        assert plan.verdict.reason is Reason.WAITING
    done = plan_rollout(rollout, status, replace(now, in_effect=split(v7=1)))
    assert (done.status, done.verdict.reason) == (None, Reason.ROLLED_OUT)


def test_going_back_to_what_was_before_a_rollout_that_has_ended_is_a_rollout() -> None:
    status, now = at_step(0, 1, spec())
    status = status.model_copy(update={"result": RolloutResult.COMPLETED})
    plan = plan_rollout(spec(), status, replace(now, wanted=split(v7=1), in_effect=split(v8=1)))
    assert in_percent(plan.wanted_now) == {"v7": 10, "v8": 90}
    assert not plan.back


def test_edited_steps_go_on_from_the_same_origin() -> None:
    status, now = at_step(1, 1, spec())
    edited = plan_rollout(spec((20, 5), (60, 5), (80, 5)), status, now)
    assert in_percent(edited.wanted_now) == {"v7": 40, "v8": 60}
    assert edited.status is not None and edited.status.origin == list(split(v7=100))


def test_a_clock_that_was_set_back_does_not_make_a_step_last_for_ever() -> None:
    status, now = at_step(0, -86_400, spec())
    plan = plan_rollout(spec(), status, now)
    assert plan.status is not None and plan.status.step_started == NOW


def test_judged_since_the_step_began_and_only_with_limits() -> None:
    rollout = spec(limits={"errorPercent": 1})
    status, _ = at_step(0, 5, rollout)
    assert judged_since(rollout, status) == NOW - timedelta(seconds=5)
    assert judged_since(spec(), status) is None


weights = st.dictionaries(st.sampled_from(["v1", "v2", "v3"]), st.integers(1, 100), min_size=1).map(
    lambda found: split(**found)
)
steps = st.lists(st.integers(0, 100), min_size=1, max_size=4).map(sorted)


@given(origin=weights, target=weights, percents=steps)
def test_a_run_moves_every_version_one_way_and_ends_at_spec(
    origin: tuple[TrafficTarget, ...], target: tuple[TrafficTarget, ...], percents: list[int]
) -> None:
    rollout = spec(*((percent, 10) for percent in percents))
    before, after = shares(origin), shares(target)
    effect, status, now = origin, None, NOW
    resident = dict.fromkeys(("v1", "v2", "v3"), True)
    for _ in range(4 * len(percents) + 6):
        plan = plan_rollout(rollout, status, Situation(target, effect, resident, None, now))
        old, new = shares(effect), shares(plan.wanted_now)
        for name in resident:
            rising = after.get(name, 0) >= before.get(name, 0)
            change = new.get(name, 0) - old.get(name, 0)
            assert (change if rising else -change) >= -0.001
        effect, status, now = plan.wanted_now, plan.status, now + timedelta(seconds=10)
    assert same_split(effect, target)
    assert status is None or status.result is RolloutResult.COMPLETED


@given(action=st.sampled_from(RolloutAction), result=st.sampled_from(RolloutResult), step=st.integers(0, 2))
def test_the_same_situation_twice_gives_the_same_plan(action: RolloutAction, result: RolloutResult, step: int) -> None:
    """What a plan remembers, put back, leads to the same split: a pass that is repeated does no harm."""
    rollout = spec(action=action)
    status, now = at_step(min(step, 1), 1, rollout if action is not RolloutAction.ABORT else spec())
    first = plan_rollout(rollout, status.model_copy(update={"result": result, "step": step}), now)
    second: RolloutPlan = plan_rollout(rollout, first.status, now)
    assert second.wanted_now == first.wanted_now
    assert second.status == first.status
