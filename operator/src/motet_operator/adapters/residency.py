"""From what single pods say of a version to what is true of it. Pure.

Invariant: the pods that count are the ready ones, because they are the ones that serve; only while none is ready, those
that run and answer. A starting pod therefore takes nothing away, and a pod that is silent makes the answer unknown,
never "no".

    of the pods that count        Resident condition
    ----------------------        ------------------
    there is none                 Unknown  NoPods
    one says it failed            False    its reason
    else one is silent            Unknown  PodUnreachable
    else all say resident         True     Resident
    else, and it is OnDemand      True     Standby, once all say resident, loading or standby
    else                          False    Loading

Of a Preferred version only those of these pods count that it has a place on. A version that no pod may be told of has
the reason for that as its own: not resident.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from motet_api.identity import AdapterId
from motet_api.loraadapter import Residency
from motet_api.reasons import AdapterReason, Reason
from motet_api.wire import AdapterReport, DesiredAdapter
from motet_operator.adapters.assignment import Assignment
from motet_operator.conditions import Verdict, no, unknown, yes
from motet_operator.snapshot import PodState

_FINE = frozenset({AdapterReason.RESIDENT})
_FINE_ON_DEMAND = frozenset({AdapterReason.RESIDENT, AdapterReason.LOADING, AdapterReason.STANDBY})
_STEPS = frozenset({Reason.FETCHING, Reason.PROGRESSING, Reason.STORE_UNREACHABLE, Reason.BASE_UNKNOWN})
"""Reasons not to tell pods of a version yet."""

Held = Mapping[AdapterId, AdapterReport]
"""What one pod says it has."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What is true of one version. `ready_on` of `pods` hold it, `failed_on` of them say that they cannot; a failure
    that is `final` is not healed by time.

    `facts` is what a pod says that has verified it; `failure` what a pod says that could not.
    """

    verdict: Verdict
    ready_on: int = 0
    pods: int = 0
    failed_on: int = 0
    failed: bool = False
    final: bool = False
    facts: AdapterReport | None = None
    failure: AdapterReport | None = None

    @property
    def resident(self) -> bool:
        """Whether every pod that counts holds it."""
        return self.verdict.true

    @property
    def uncertain(self) -> bool:
        """Whether a pod that counts is silent, or there is none."""
        return self.verdict.reason in {Reason.POD_UNREACHABLE, Reason.NO_PODS}


def counting(pods: Sequence[PodState]) -> tuple[PodState, ...]:
    """The pods that count: the ready ones; while none is ready those that run, of which those that answer."""
    ready = tuple(state for state in pods if state.pod.ready)
    running = tuple(state for state in pods if state.pod.running)
    return ready or tuple(state for state in running if state.report is not None) or running


def standings(assignment: Assignment, pods: Sequence[PodState]) -> dict[AdapterId, Standing]:
    """What is true of each version that asks for a place on these pods."""
    everywhere = [(state, _held(state)) for state in counting(pods)]
    found: dict[AdapterId, Standing] = {}
    for name, entry in assignment.wanted.items():
        if entry.refusal is not None:
            refused = _refused(name, entry.refusal)
            found[name] = _kept(refused, entry.desired, entry.on, everywhere) if entry.on else refused
        elif entry.on is None:
            found[name] = _standing(entry.desired, everywhere)
        else:
            placed = counting([state for state in pods if state.pod.name in entry.on])
            found[name] = _standing(entry.desired, [(state, _held(state)) for state in placed])
    return found


def _kept(
    refused: Standing, wanted: DesiredAdapter, on: Collection[str], held: Sequence[tuple[PodState, Held]]
) -> Standing:
    """It goes to no pod more, and those that hold it keep it."""
    there = _standing(wanted, [(state, entries) for state, entries in held if state.pod.name in on])
    without = sum(state.pod.name not in on and state.report is not None for state, _ in held)
    return replace(refused, ready_on=there.ready_on, pods=len(held), failed_on=without, facts=there.facts)


def _refused(name: AdapterId, refusal: Verdict) -> Standing:
    """No pod may be told of it. That is a failure unless the adapter store is still at it."""
    reason = refusal.reason
    step = reason in _STEPS or (isinstance(reason, AdapterReason) and not reason.failed)
    transient = isinstance(reason, AdapterReason) and reason.transient
    failure = None
    if isinstance(reason, AdapterReason) and not step:
        failure = AdapterReport(id=name, reason=reason, message=refusal.message)
    return Standing(refusal, failed=not step, final=not step and not transient, failure=failure)


def _standing(wanted: DesiredAdapter, held: Sequence[tuple[PodState, Held]]) -> Standing:
    if not held:
        return Standing(unknown(Reason.NO_PODS, "no pod of the model runs"))
    entries = [(state, entry_of(wanted, entries)) for state, entries in held]
    holding = _FINE_ON_DEMAND if wanted.residency is Residency.ON_DEMAND else _FINE
    fine = [entry for _, entry in entries if entry is not None and entry.reason in holding]
    failing = [(state, entry) for state, entry in entries if entry is not None and entry.reason.failed]
    # What will not heal is said before what might.
    worst = min(failing, key=lambda item: item[1].reason.transient)[1] if failing else None
    return Standing(
        verdict=_verdict(entries, fine, worst, wanted.residency),
        ready_on=len(fine),
        pods=len(held),
        failed_on=len(failing),
        failed=bool(failing),
        final=any(not entry.reason.transient for _, entry in failing),
        facts=next((entry for _, entry in entries if entry is not None and entry.rank is not None), None),
        failure=worst,
    )


def _verdict(
    entries: Sequence[tuple[PodState, AdapterReport | None]],
    fine: Sequence[AdapterReport],
    worst: AdapterReport | None,
    residency: Residency,
) -> Verdict:
    if worst is not None:
        where = named([state for state, entry in entries if entry is not None and entry.reason is worst.reason])
        return no(worst.reason, f"{worst.message or worst.reason} (on {where})")
    if len({entry.digest for entry in fine} - {None}) > 1:
        # Before a digest is recorded pods may have read different bytes; told of the digest, all but one will say so.
        return no(AdapterReason.LOADING, "pods have read different bytes; those of one of them will hold")
    silent = [state for state, _ in entries if state.report is None]
    if silent:
        return unknown(Reason.POD_UNREACHABLE, f"{named(silent)} does not answer: {silent[0].silence}")
    if len(fine) == len(entries):
        if residency is Residency.ON_DEMAND:
            # The same whether or not it is loaded just now: requests must not make the operator write.
            return yes(AdapterReason.STANDBY, f"known to {len(fine)} pods, each loads it when a request names it")
        return yes(AdapterReason.RESIDENT, f"resident on {len(fine)} of {len(entries)} pods")
    waiting = [state for state, entry in entries if entry is None or entry.reason is not AdapterReason.RESIDENT]
    return no(AdapterReason.LOADING, f"loading on {named(waiting)}")


def _held(state: PodState) -> Held:
    """What a pod says it has, by runtime id, without what it is about to unload."""
    reported = state.report.adapters if state.report is not None else []
    return {entry.id: entry for entry in reported if entry.reason is not AdapterReason.DRAINING}


def entry_of(wanted: DesiredAdapter, held: Held) -> AdapterReport | None:
    """What a pod says of the version; nothing if what it has under that id, or was told to have, is something else."""
    found = held.get(wanted.id)
    if found is None or found.uri != wanted.uri:
        return None
    # A digest that has only just been found is told to pods afterwards: the bytes are the right ones before.
    right = wanted.digest is not None and found.digest == wanted.digest
    return found if right or found.desired_digest == wanted.digest else None


def in_wanted_state(state: PodState, document: Sequence[DesiredAdapter]) -> bool:
    """Whether a pod has been told this document: it has every version in it, loaded or failed, and no other."""
    if state.report is None or not state.report.desired_known:
        return False
    held = _held(state)
    return len(held) == len(document) and all(_as_told(wanted, entry_of(wanted, held)) for wanted in document)


def _as_told(wanted: DesiredAdapter, found: AdapterReport | None) -> bool:
    """Whether a pod knows all that it should of a version; one of an earlier release does not say how firmly."""
    return (
        found is not None
        and found.desired_digest == wanted.digest
        and found.residency in (None, wanted.residency)
        and found.proven in (None, wanted.proven)
    )


def holds_back(reason: AdapterReason) -> bool:
    """Whether a starting pod waits for a version in this state before it is ready."""
    return reason is AdapterReason.LOADING or reason.transient


def named(pods: Sequence[PodState]) -> str:
    """Pods by name, at most two of them."""
    names = sorted(state.pod.name for state in pods)
    return f"{names[0]} and {len(names) - 1} more" if len(names) > 2 else " and ".join(names)
