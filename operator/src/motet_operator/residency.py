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
    else                          False    Loading
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from motet_api.identity import AdapterId, adapter_id
from motet_api.reasons import AdapterReason, Reason
from motet_api.wire import AdapterReport, DesiredAdapter
from motet_operator.conditions import Verdict, no, unknown, yes
from motet_operator.snapshot import PodState
from motet_operator.views import Adapter

Held = Mapping[AdapterId, AdapterReport]
"""What one pod says it has."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What is true of one version. `ready_on` of `pods` hold it; a failure that is `final` is not healed by time."""

    verdict: Verdict
    ready_on: int = 0
    pods: int = 0
    failed: bool = False
    final: bool = False
    facts: AdapterReport | None = None

    @property
    def resident(self) -> bool:
        """Whether every pod that counts holds it."""
        return self.verdict.true

    @property
    def uncertain(self) -> bool:
        """Whether a pod that counts is silent, or there is none."""
        return self.verdict.reason in {Reason.POD_UNREACHABLE, Reason.NO_PODS}


def desired_adapters(adapters: Iterable[Adapter]) -> tuple[DesiredAdapter, ...]:
    """The whole document for the pods of one model: every version of every adapter that is not on its way out."""
    return tuple(
        DesiredAdapter.model_validate(
            {
                "id": adapter_id(adapter.meta.name, version.name),
                "uri": version.source.uri,
                "digest": version.source.digest,
            }
        )
        for adapter in adapters
        if adapter.spec is not None and not adapter.deleting
        for version in adapter.spec.versions
    )


def counting(pods: Sequence[PodState]) -> tuple[PodState, ...]:
    """The pods that count: the ready ones; while none is ready those that run, of which those that answer."""
    ready = tuple(state for state in pods if state.pod.ready)
    running = tuple(state for state in pods if state.pod.running)
    return ready or tuple(state for state in running if state.report is not None) or running


def standings(document: Sequence[DesiredAdapter], pods: Sequence[PodState]) -> dict[AdapterId, Standing]:
    """What is true of each version of a document on the pods that count."""
    held = [_held(state) for state in pods]
    return {wanted.id: _standing(wanted, pods, held) for wanted in document}


def _standing(wanted: DesiredAdapter, pods: Sequence[PodState], held: Sequence[Held]) -> Standing:
    if not pods:
        return Standing(unknown(Reason.NO_PODS, "no pod of the model runs"))
    entries = [(state, _entry(wanted, entries)) for state, entries in zip(pods, held, strict=True)]
    holding = [entry for _, entry in entries if entry is not None and entry.reason is AdapterReason.RESIDENT]
    failing = [(state, entry) for state, entry in entries if entry is not None and entry.reason.failed]
    silent = [state for state in pods if state.report is None]
    known = next((entry for _, entry in entries if entry is not None and entry.rank is not None), None)
    return Standing(
        verdict=_verdict(entries, holding, failing, silent),
        ready_on=len(holding),
        pods=len(pods),
        failed=bool(failing),
        final=any(not entry.reason.transient for _, entry in failing),
        facts=known,
    )


def _verdict(
    entries: Sequence[tuple[PodState, AdapterReport | None]],
    holding: Sequence[AdapterReport],
    failing: Sequence[tuple[PodState, AdapterReport]],
    silent: Sequence[PodState],
) -> Verdict:
    if failing:
        # What will not heal is said before what might.
        _, worst = min(failing, key=lambda item: item[1].reason.transient)
        where = named([state for state, entry in failing if entry.reason is worst.reason])
        return no(worst.reason, f"{worst.message or worst.reason} (on {where})")
    if silent:
        return unknown(Reason.POD_UNREACHABLE, f"{named(silent)} does not answer: {silent[0].silence}")
    if len(holding) == len(entries):
        return yes(AdapterReason.RESIDENT, f"resident on {len(holding)} of {len(entries)} pods")
    waiting = [state for state, entry in entries if entry is None or entry.reason is not AdapterReason.RESIDENT]
    return no(AdapterReason.LOADING, f"loading on {named(waiting)}")


def _held(state: PodState) -> Held:
    """What a pod says it has, by runtime id, without what it is about to unload."""
    reported = state.report.adapters if state.report is not None else []
    return {entry.id: entry for entry in reported if entry.reason is not AdapterReason.DRAINING}


def _entry(wanted: DesiredAdapter, held: Held) -> AdapterReport | None:
    """What a pod says of the version; nothing if what it was told under that id is something else."""
    found = held.get(wanted.id)
    told = found is not None and (found.uri, found.desired_digest) == (wanted.uri, wanted.digest)
    return found if told else None


def in_wanted_state(state: PodState, document: Sequence[DesiredAdapter]) -> bool:
    """Whether a pod has been told this document: it has every version in it, loaded or failed, and no other."""
    if state.report is None or not state.report.desired_known:
        return False
    held = _held(state)
    return len(held) == len(document) and all(_entry(wanted, held) is not None for wanted in document)


def holds_back(reason: AdapterReason) -> bool:
    """Whether a starting pod waits for a version in this state before it is ready."""
    return reason is AdapterReason.LOADING or reason.transient


def named(pods: Sequence[PodState]) -> str:
    """Pods by name, at most two of them."""
    names = sorted(state.pod.name for state in pods)
    return f"{names[0]} and {len(names) - 1} more" if len(names) > 2 else " and ".join(names)
