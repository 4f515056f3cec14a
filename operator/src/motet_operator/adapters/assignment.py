"""What the pods of one model are to hold, and why anything that asks for it is left out. Pure.

Invariant: a pod is told of a version only by what is recorded: spec, and what status says of the version. So a version
that is fetched by the store is told with the digest that status has, and a restart of the operator tells the same. What
pods serve by that digest is not taken away by a store that lost it, nor by a base or rank that it would not fit now.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from motet_api.identity import AdapterId
from motet_api.loraadapter import LoraAdapterStatus, Residency
from motet_api.objects import Condition, ConditionStatus
from motet_api.reasons import AdapterReason, ConditionType, Reason
from motet_api.wire import DesiredAdapter
from motet_operator.adapters.placement import Item, Placement, Room, place
from motet_operator.adapters.tenancy import not_allowed, not_readable, source_refusal
from motet_operator.adapters.versions import Version, id_of, versions_of
from motet_operator.conditions import Verdict, find, no
from motet_operator.snapshot import PodState, Site, Tenants
from motet_operator.views import Adapter

_MIB: Final = 1 << 20
_NEEDED: Final = (ConditionType.RESOLVED, ConditionType.VERIFIED, ConditionType.COMPATIBLE)


@dataclass(frozen=True, slots=True)
class Wanted:
    """One version that asks for a place. `refusal` says why it has none, or none but on those that hold it; `on` names
    its pods, None means all.
    """

    adapter: Adapter
    version: Version
    desired: DesiredAdapter
    refusal: Verdict | None = None
    on: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Assignment:
    """Every version that asks for a place on one model's pods, by runtime id."""

    wanted: Mapping[AdapterId, Wanted]

    def documents(self, pods: Iterable[str]) -> dict[str, tuple[DesiredAdapter, ...]]:
        """What each pod must hold."""
        placed = [entry for entry in self.wanted.values() if entry.refusal is None or entry.on]
        if all(entry.on is None for entry in placed):
            everywhere = tuple(entry.desired for entry in placed)
            return dict.fromkeys(pods, everywhere)
        return {pod: tuple(entry.desired for entry in placed if entry.on is None or pod in entry.on) for pod in pods}


def assign(site: Site, tenants: Tenants) -> Assignment:
    """The assignment of one model's pods."""
    if site.model is None:
        return Assignment({})
    asking = {
        id_of(adapter, version): Wanted(adapter, version, _desired(adapter, version, site.pods))
        for adapter in site.adapters
        if not adapter.deleting
        for version in versions_of(adapter)
        if version.model == site.key
    }
    refusals = {name: verdict for name, entry in asking.items() if (verdict := _refusal(site, entry, tenants))}
    placed = place(
        [_item(name, entry) for name, entry in asking.items() if name not in refusals],
        [_room(state) for state in site.pods if state.pod.running],
    )
    return Assignment({name: _settled(name, entry, refusals.get(name), placed) for name, entry in asking.items()})


def told(adapter: Adapter, status: LoraAdapterStatus | None) -> tuple[tuple[str, str | None, bool], ...]:
    """What pods may be told of an adapter by such a status, whatever room there is: to see whether it has changed."""
    return tuple(
        (version.name, version.digest, not version.source.remote or _unverified(version) is None)
        for version in versions_of(replace(adapter, status=status))
    )


def _desired(adapter: Adapter, version: Version, pods: Sequence[PodState]) -> DesiredAdapter:
    remote = version.source.remote
    return DesiredAdapter.model_validate(
        {
            "id": id_of(adapter, version),
            "uri": version.source.uri,
            "digest": version.digest,
            "residency": adapter.spec.residency if adapter.spec else _as_told(id_of(adapter, version), pods),
            "from_store": remote,
        }
    )


def _as_told(name: AdapterId, pods: Sequence[PodState]) -> Residency:
    """How firmly pods hold a version, where spec does not say it; so that they go on, and nothing is pushed aside."""
    reports = (state.report for state in pods if state.report is not None)
    told = (entry.residency for report in reports for entry in report.adapters if entry.id == name)
    return next((residency for residency in told if residency is not None), Residency.PREFERRED)


def _refusal(site: Site, entry: Wanted, tenants: Tenants) -> Verdict | None:
    """Why a version must not be told to any pod, whatever room there is."""
    namespace = entry.adapter.meta.namespace
    if site.model is not None:
        message = not_allowed(site.model, namespace, tenants.labels)
        if message:
            return no(Reason.NOT_ALLOWED, message)
    beyond = tenants.over_quota.get(entry.adapter.name)
    over = beyond.of(entry.version.name) if beyond is not None else ""
    if over:
        return no(Reason.QUOTA_EXCEEDED, over)
    if entry.version.source.remote:
        unverified = _unverified(entry.version)
        return None if unverified is not None and _goes_on(site, entry, unverified.reason) else unverified
    message = not_readable(site.model, namespace, entry.version.source.uri) if site.model is not None else ""
    if message:
        return no(Reason.NOT_ALLOWED, message)
    refused = source_refusal(entry.version.source.uri, namespace, tenants.policy)
    return no(refused.reason, refused.message) if refused is not None else None


def _unverified(version: Version) -> Verdict | None:
    """What is recorded against telling pods of a version that the store fetches: a failure before what is not known."""
    recorded: Sequence[Condition] = version.recorded.conditions if version.recorded else ()
    found = [find(recorded, kind) for kind in _NEEDED]
    conditions = [entry for entry in found if entry is not None]
    if len(conditions) < len(found):
        return no(Reason.FETCHING, "the adapter store has not been asked yet")
    refused = [entry for entry in conditions if entry.status is ConditionStatus.FALSE]
    # Whether it fits may not be known yet: pods check it themselves, and one that starts is not ready without it.
    unknown = [entry for entry in conditions[:-1] if entry.status is ConditionStatus.UNKNOWN]
    for entry in (*refused, *unknown):
        return no(reason_of(entry), entry.message)
    return None if version.digest else no(Reason.FETCHING, "its digest is not known yet")


def _goes_on(site: Site, entry: Wanted, reason: Reason | AdapterReason) -> bool:
    """Whether a version is told all the same, because pods serve it: only policy takes away what was verified.

    All pods are told, also those that start: each says by itself whether it can, and a roll waits for it. A ready pod
    that is silent may be one that serves it.
    """
    if isinstance(reason, AdapterReason) and reason.by_policy:
        return False
    version, name = entry.version, entry.desired.id
    if version.recorded is None or version.recorded.digest is None:
        return False
    if version.proven and any(state.report is None and state.pod.ready for state in site.pods):
        return True
    return any(
        found.id == name and found.reason is AdapterReason.RESIDENT and found.digest == version.digest
        for state in site.pods
        if state.report is not None
        for found in state.report.adapters
    )


def reason_of(condition: Condition) -> Reason | AdapterReason:
    """The reason that a condition names; Progressing for one that this version of the operator does not know."""
    for kind in (AdapterReason, Reason):
        if condition.reason in set(kind):
            return kind(condition.reason)
    return Reason.PROGRESSING


def _item(name: AdapterId, entry: Wanted) -> Item:
    traffic = entry.adapter.status.traffic if entry.adapter.status else ()
    serving = any(target.weight > 0 and target.version == entry.version.name for target in traffic)
    made = entry.adapter.meta.creation_timestamp
    since = made.timestamp() if made is not None else 0.0
    return Item(name, entry.desired.residency, _size(entry.version), serving, since)


def _size(version: Version) -> int | None:
    """What a version takes on a pod: what its files are as long as nobody can say it of its base."""
    recorded = version.recorded
    return None if recorded is None else recorded.held_bytes or recorded.size_bytes


def _room(state: PodState) -> Room:
    report = state.report
    if report is None:
        return Room(state.pod.name, silent=True)
    holds = frozenset(entry.id for entry in report.adapters if entry.reason is not AdapterReason.DRAINING)
    return Room(state.pod.name, report.adapter_bytes, holds)


def _settled(name: AdapterId, entry: Wanted, refusal: Verdict | None, placed: Placement) -> Wanted:
    missing = placed.missing.get(name)
    if missing is not None:
        refusal = no(Reason.DOES_NOT_FIT, _explained(entry, missing))
    return Wanted(entry.adapter, entry.version, entry.desired, refusal, placed.on.get(name))


def _explained(entry: Wanted, missing: Mapping[str, int]) -> str:
    size = _size(entry.version)
    where = ", ".join(f"{bytes_text(lacking)} are missing on {pod}" for pod, lacking in sorted(missing.items())[:3])
    more = f" and on {len(missing) - 3} more pods" if len(missing) > 3 else ""
    return (
        f"it needs {bytes_text(size or 0)} ({entry.desired.residency}) beside what the pods must hold: {where}{more}; "
        "raise spec.adapters.hostMemory or disk of the ModelDeployment, or remove versions"
    )


def bytes_text(count: int) -> str:
    """Bytes for people: exact, and in MiB where that says more."""
    return f"{count} bytes ({count / _MIB:.1f} MiB)" if count >= _MIB else f"{count} bytes"
