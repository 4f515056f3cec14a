"""How the split moves from the one in effect to the one in spec: step by step, within limits, and back. Pure.

Invariant: the only memory is `status.rollout`. It says which target the rollout is about (`key`), where it came from
(`origin`) and which step is in effect since when; everything else follows from spec, from what is in effect and from
what the gateways have seen since the step began. So a pass can be repeated, cut off or made by another process.

    rollout                              wanted now             RolledOut
    -------                              ----------             ---------
    none in spec, or nothing to leave    spec.traffic           True once in effect, else Waiting
    a step that is not yet in effect     the step's split       False  Waiting
    in effect, its time not over         the step's split       False  Baking, or Paused
    over, too little seen to judge       the step's split       False  Waiting
    over, and no gateway to ask          the step's split       False  GatewayNotConfigured
    over, within the limits              the next step's        False  Waiting
    a limit passed                       origin, at once        False  RolledBack, until spec asks for something else
    action Abort                         origin, at once        False  Aborted, until action is Run again
    spec asks for the origin again       origin, at once        True once in effect, else Waiting; then it is forgotten
    action Promote                       spec.traffic           True once in effect, else Waiting
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Final

from motet_api.loraadapter import (
    MirrorTarget,
    RolloutAction,
    RolloutResult,
    RolloutSpec,
    RolloutStatus,
    TrafficTarget,
)
from motet_api.reasons import Reason
from motet_operator.adapters.evidence import Evidence, breach, missing
from motet_operator.adapters.traffic import Targets, in_parts, same_split, shares
from motet_operator.conditions import Verdict, no, yes

JUDGE_SECONDS: Final = 2.0
"""How often the limits are looked at while a step bakes."""
_NOBODY_TO_ASK: Final = (
    "has limits, and no gateway is configured that could say what became of requests (option --gateway-service of the "
    "operator): configure it, remove spec.rollout.limits, or set rollout.action to Promote"
)


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """The split to move to now, the copies to send, what to remember and what to say.

    `gaining` must not get more than `wanted_now` gives them; `back` says that they still have it and must lose it.
    """

    wanted_now: tuple[TrafficTarget, ...]
    verdict: Verdict
    gaining: tuple[str, ...] = ()
    back: bool = False
    mirror: tuple[MirrorTarget, ...] = ()
    status: RolloutStatus | None = None
    summary: str = ""
    look_again: float | None = None


@dataclass(frozen=True, slots=True)
class Situation:
    """What a rollout is decided from, beside spec.

    `in_effect` is the split that the gateways were told, `resident` whether each version can be served wherever it is
    routed, `evidence` what the gateways have seen since the present step began (None: nobody was asked). `judges` says
    whether there is any gateway to ask.
    """

    wanted: tuple[TrafficTarget, ...]
    in_effect: tuple[TrafficTarget, ...]
    resident: Mapping[str, bool]
    evidence: Evidence | None
    now: datetime
    judges: bool = True


def plan_rollout(spec: RolloutSpec | None, previous: RolloutStatus | None, seen: Situation) -> RolloutPlan:
    """The plan; `previous` is what status says of the rollout so far."""
    there = same_split(seen.in_effect, seen.wanted)
    if spec is None or not seen.in_effect:
        return _direct(seen, there, None)
    key = _key(spec, seen.wanted)
    if previous is None or previous.key != key:
        if there:
            return _direct(seen, there, None)
        if previous is not None and _reverted(previous, seen):
            return _returning(_direct(seen, there, previous), previous, seen)
        previous = _begin(spec, key, previous, seen)
    if spec.action is RolloutAction.PROMOTE:
        previous = _at(previous, step=len(spec.steps), result=RolloutResult.PROGRESSING, message="")
    elif spec.action is RolloutAction.ABORT and previous.result is not RolloutResult.COMPLETED:
        previous = _at(previous, result=RolloutResult.ABORTED, message="spec.rollout.action is Abort")
    elif previous.result is RolloutResult.ABORTED:
        previous = _at(previous, step=0, result=RolloutResult.PROGRESSING, message="")
    match previous.result:
        case RolloutResult.ROLLED_BACK | RolloutResult.ABORTED:
            return _taken_back(previous, seen)
        case RolloutResult.COMPLETED:
            return _direct(seen, there, previous)
        case RolloutResult.PROGRESSING:
            return _step(spec, previous, seen)


def judged_since(spec: RolloutSpec | None, previous: RolloutStatus | None) -> datetime | None:
    """Since when evidence is wanted; None if nothing is being judged."""
    if spec is None or previous is None or previous.result is not RolloutResult.PROGRESSING:
        return None
    return previous.step_started if spec.limits is not None and spec.action is not RolloutAction.PROMOTE else None


def kept_versions(previous: RolloutStatus | None) -> frozenset[str]:
    """Versions that must stay resident though spec may not have them any more: those to which a rollout may return."""
    if previous is None or previous.result is RolloutResult.COMPLETED:
        return frozenset()
    return frozenset(target.version for target in previous.origin)


def _begin(spec: RolloutSpec, key: str, previous: RolloutStatus | None, seen: Situation) -> RolloutStatus:
    """A rollout to a new target starts from what is in effect; one whose steps were edited goes on from its origin."""
    target = list(seen.wanted)
    going_on = (
        previous is not None
        and previous.result is RolloutResult.PROGRESSING
        and same_split(previous.target, seen.wanted)
    )
    if previous is not None and going_on:
        return RolloutStatus(
            key=key, origin=previous.origin, target=target, step=min(previous.step, len(spec.steps) - 1)
        )
    return RolloutStatus(key=key, origin=list(seen.in_effect), target=target)


def _reverted(previous: RolloutStatus, seen: Situation) -> bool:
    """Whether spec asks for what there was before a rollout that has not come to its end."""
    return previous.result is not RolloutResult.COMPLETED and same_split(previous.origin, seen.wanted)


def _step(spec: RolloutSpec, status: RolloutStatus, seen: Situation) -> RolloutPlan:
    if status.step >= len(spec.steps):
        there = same_split(seen.in_effect, seen.wanted)
        done = _at(status, result=RolloutResult.COMPLETED) if there else status
        return _direct(seen, there, done)
    step = spec.steps[status.step]
    split = _between(status.origin, status.target, step.weight)
    gaining = _gaining(status)
    plan = RolloutPlan(
        wanted_now=split,
        verdict=no(Reason.WAITING, ""),
        gaining=tuple(gaining),
        mirror=tuple(MirrorTarget(version=name, percent=spec.mirror_percent) for name in gaining)
        if spec.mirror_percent
        else (),
        status=status,
        summary=f"step {status.step + 1}/{len(spec.steps)} {step.weight}%",
        look_again=JUDGE_SECONDS,
    )
    broken = _broken(spec, gaining, seen.evidence) if status.step_started is not None else ""
    if broken:
        taken_back = _at(status, result=RolloutResult.ROLLED_BACK, message=f"at {plan.summary}: {broken}")
        return _taken_back(taken_back, seen)
    absent = [name for name in gaining if not seen.resident.get(name, False)]
    if absent or not same_split(seen.in_effect, split):
        waits = f"for {', '.join(absent)} to be resident" if absent else "for the split to be in effect"
        # A step that was in effect stays begun: pods that come and go meanwhile do not make it bake anew.
        return replace(plan, verdict=no(Reason.WAITING, f"{plan.summary} waits {waits}"))
    return _bake(spec, plan, status, seen)


def _bake(spec: RolloutSpec, plan: RolloutPlan, status: RolloutStatus, seen: Situation) -> RolloutPlan:
    """A step that is in effect."""
    now = seen.now.replace(microsecond=0)
    # A clock that was set back must not make the step last for ever.
    started = now if status.step_started is None else min(status.step_started, now)
    plan = replace(plan, status=status.model_copy(update={"step_started": started}))
    step = spec.steps[status.step]
    left = (started + timedelta(seconds=step.bake_seconds) - now).total_seconds()
    if spec.action is RolloutAction.PAUSE:
        return replace(plan, verdict=no(Reason.PAUSED, f"{plan.summary}: spec.rollout.action is Pause"))
    if left > 0:
        again = min(left, JUDGE_SECONDS) if spec.limits is not None else left
        message = f"{plan.summary} bakes for {step.bake_seconds} s"
        return replace(plan, verdict=no(Reason.BAKING, message), look_again=again)
    if spec.limits is not None and not seen.judges:
        return replace(plan, verdict=no(Reason.GATEWAY_NOT_CONFIGURED, f"{plan.summary} {_NOBODY_TO_ASK}"))
    unseen = _unseen(spec, _gaining(status), seen)
    if unseen:
        return replace(plan, verdict=no(Reason.WAITING, f"{plan.summary} waits for {unseen}"))
    following = _at(status, step=status.step + 1)
    if following.step == len(spec.steps):
        return _direct(seen, same_split(seen.in_effect, seen.wanted), following)
    upcoming = spec.steps[following.step]
    summary = f"step {following.step + 1}/{len(spec.steps)} {upcoming.weight}%"
    return replace(
        plan,
        wanted_now=_between(status.origin, status.target, upcoming.weight),
        verdict=no(Reason.WAITING, f"{summary} waits for the split to be in effect"),
        status=following,
        summary=summary,
    )


def _direct(seen: Situation, there: bool, status: RolloutStatus | None) -> RolloutPlan:
    """To spec.traffic, without steps or after the last of them."""
    if there and status is not None and status.result is RolloutResult.PROGRESSING:
        status = _at(status, result=RolloutResult.COMPLETED)
    verdict = (
        yes(Reason.ROLLED_OUT, "the split in effect is the one in spec")
        if there
        else no(Reason.WAITING, "waits for the split of spec to be in effect")
    )
    return RolloutPlan(seen.wanted, verdict, status=status)


def _taken_back(status: RolloutStatus, seen: Situation) -> RolloutPlan:
    aborted = status.result is RolloutResult.ABORTED
    reason, summary = (Reason.ABORTED, "aborted") if aborted else (Reason.ROLLED_BACK, "rolled back")
    remedy = (
        "set it to Run to start again"
        if aborted
        else "change spec.traffic or spec.rollout to try again, or set rollout.action to Promote"
    )
    message = f"{status.message}; {remedy}"
    if not same_split(seen.in_effect, status.origin):
        message = f"the split before the rollout is not yet in effect; {message}"
        summary += ", not yet in effect"
    plan = RolloutPlan(tuple(status.origin), no(reason, message), status=status, summary=summary)
    return _returning(plan, status, seen)


def _returning(plan: RolloutPlan, status: RolloutStatus, seen: Situation) -> RolloutPlan:
    """A plan that leads back to the origin: while versions have more than they had, that ends at once."""
    gaining = _gaining(status)
    now, before = shares(seen.in_effect), shares(status.origin)
    gained = any(now.get(name, Fraction(0)) > before.get(name, Fraction(0)) for name in gaining)
    return replace(plan, gaining=tuple(gaining), back=True) if gained else plan


def _broken(spec: RolloutSpec, gaining: Sequence[str], evidence: Evidence | None) -> str:
    if spec.limits is None or evidence is None:
        return ""
    for name in gaining:
        broken = breach(spec.limits, evidence.of(name))
        if broken:
            return f"{name}: {broken}"
    return ""


def _unseen(spec: RolloutSpec, gaining: Sequence[str], seen: Situation) -> str:
    """What must be known before a step is passed and is not."""
    evidence = seen.evidence
    if spec.limits is None:
        return ""
    if evidence is None or not evidence.complete:
        return "a gateway that does not answer"
    for name in gaining:
        # At the last step there may be nobody left to copy from.
        comparable = any(other not in gaining for other in shares(seen.in_effect))
        unseen = missing(spec.limits, evidence.of(name), comparable=comparable)
        if unseen:
            return f"{unseen} of {name}"
    return ""


def _gaining(status: RolloutStatus) -> list[str]:
    before = shares(status.origin)
    return sorted(name for name, share in shares(status.target).items() if share > before.get(name, Fraction(0)))


def _between(origin: Targets, target: Targets, percent: int) -> tuple[TrafficTarget, ...]:
    """The split so many percent of the way from one to the other; the ends are as they are written."""
    if percent in {0, 100}:
        return tuple(origin if percent == 0 else target)
    before, after, way = shares(origin), shares(target), Fraction(percent, 100)
    names = [*after, *(name for name in before if name not in after)]
    mixed = {name: before.get(name, Fraction(0)) * (1 - way) + after.get(name, Fraction(0)) * way for name in names}
    return in_parts(mixed)


def _key(spec: RolloutSpec, wanted: Targets) -> str:
    """Tells apart what is asked for. `action` is no part of it: it says how to go, not where to."""
    asked = spec.model_dump(mode="json", exclude={"action"})
    asked["wanted"] = {name: str(share) for name, share in sorted(shares(wanted).items())}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def _at(
    status: RolloutStatus,
    *,
    step: int | None = None,
    result: RolloutResult | None = None,
    message: str | None = None,
) -> RolloutStatus:
    """The status somewhere else; another step has not begun yet."""
    changes: dict[str, object] = {}
    if step is not None and step != status.step:
        changes |= {"step": step, "step_started": None}
    if result is not None:
        changes["result"] = result
    if message is not None:
        changes["message"] = message
    return status.model_copy(update=changes)
