"""Conditions: made in one place, so that `lastTransitionTime` moves when the status does and at no other time. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from motet_api.objects import Condition, ConditionStatus
from motet_api.reasons import AdapterReason, ConditionType, Reason

LONGEST_MESSAGE: Final = 2048


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said under one condition type."""

    status: ConditionStatus
    reason: Reason | AdapterReason
    message: str

    @property
    def true(self) -> bool:
        """Whether the condition holds."""
        return self.status is ConditionStatus.TRUE


def yes(reason: Reason | AdapterReason, message: str) -> Verdict:
    """It holds."""
    return Verdict(ConditionStatus.TRUE, reason, message)


def no(reason: Reason | AdapterReason, message: str) -> Verdict:
    """It does not hold."""
    return Verdict(ConditionStatus.FALSE, reason, message)


def unknown(reason: Reason | AdapterReason, message: str) -> Verdict:
    """Nobody can say."""
    return Verdict(ConditionStatus.UNKNOWN, reason, message)


@dataclass(frozen=True, slots=True)
class Stamp:
    """What conditions of one object have in common: the generation they are about, and when they are made."""

    generation: int
    now: datetime

    def condition(self, previous: Sequence[Condition], kind: ConditionType, verdict: Verdict) -> Condition:
        """The condition of one type; it keeps the time of the previous one while the status stays."""
        old = find(previous, kind)
        kept = old is not None and old.status is verdict.status
        message = verdict.message[:LONGEST_MESSAGE]
        if (
            old
            and kept
            and (old.reason, old.message, old.observed_generation)
            == (
                verdict.reason,
                message,
                self.generation,
            )
        ):
            return old
        return Condition(
            type=kind,
            status=verdict.status,
            observed_generation=self.generation,
            last_transition_time=old.last_transition_time if old and kept else self.now.replace(microsecond=0),
            reason=verdict.reason,
            message=message,
        )


def kstatus(ready: Verdict, stuck: bool) -> dict[ConditionType, Verdict]:
    """Reconciling and Stalled, from which kstatus (and so `kubectl wait`, Argo CD and Flux) tells how an object is.

        Ready               stuck     Reconciling    Stalled          kstatus
        -----               -----     -----------    -------          -------
        True                          False          False            Current
        False or Unknown    no        True           False            InProgress
        False or Unknown    yes       False          True, the same   Failed

    Args:
        stuck: whether somebody must change something before it can become ready.
    """
    if ready.true:
        reconciling, stalled = no(Reason.READY, ""), no(Reason.NOT_STALLED, "")
    elif stuck:
        reconciling, stalled = no(ready.reason, ready.message), yes(ready.reason, ready.message)
    else:
        reconciling, stalled = yes(ready.reason, ready.message), no(Reason.NOT_STALLED, "")
    return {ConditionType.RECONCILING: reconciling, ConditionType.STALLED: stalled}


def find(conditions: Sequence[Condition], kind: str) -> Condition | None:
    """The condition of one type, if there is one."""
    return next((entry for entry in conditions if entry.type == kind), None)


def same(old: Sequence[Condition], new: Sequence[Condition]) -> bool:
    """Whether two sets say the same, whenever it came about."""
    return {entry.type: _said(entry) for entry in old} == {entry.type: _said(entry) for entry in new}


def _said(condition: Condition) -> tuple[str, str, str, int]:
    return condition.status, condition.reason, condition.message, condition.observed_generation
