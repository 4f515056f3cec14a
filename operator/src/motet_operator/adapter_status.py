"""The status of one LoraAdapter. Pure; the only author of its conditions."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from motet_api.loraadapter import AdapterSummary, LoraAdapterSpec, LoraAdapterStatus, VersionStatus
from motet_api.objects import Condition, ConditionStatus
from motet_api.reasons import ConditionType, Reason
from motet_operator.conditions import Stamp, Verdict, no, unknown, yes
from motet_operator.residency import Standing
from motet_operator.traffic import Split, effective_split, summary
from motet_operator.views import Adapter

Standings = Mapping[str, Standing]
"""What is true of each version in spec, by its name."""


def adapter_status(adapter: Adapter, standings: Standings, serving: bool, stamp: Stamp) -> LoraAdapterStatus:
    """The status of an adapter whose ModelDeployment exists; `serving` says whether any of its pods is ready."""
    previous = adapter.status or LoraAdapterStatus()
    if adapter.spec is None:
        return _only_ready(previous, no(Reason.INVALID_SPEC, adapter.error), stamp)
    split = effective_split(adapter.spec.wanted_traffic(), previous.traffic, standings)
    ready = sum(found.resident for found in standings.values())
    return LoraAdapterStatus(
        observed_generation=stamp.generation,
        versions=_versions(adapter.spec, previous, standings, stamp),
        traffic=list(split.targets),
        summary=AdapterSummary(traffic=summary(split.targets), versions=f"{ready}/{len(standings)}"),
        conditions=[stamp.condition(previous.conditions, ConditionType.READY, _ready(standings, split, serving))],
    )


def orphan_status(adapter: Adapter, model: str, stamp: Stamp) -> LoraAdapterStatus:
    """The status of an adapter whose ModelDeployment does not exist: nothing holds it and nothing is served."""
    previous = adapter.status or LoraAdapterStatus()
    if adapter.spec is None:
        return _only_ready(previous, no(Reason.INVALID_SPEC, adapter.error), stamp)
    message = f"spec.modelRef names ModelDeployment {model!r}, which does not exist in this namespace"
    missing = Standing(unknown(Reason.MODEL_DEPLOYMENT_NOT_FOUND, message))
    standings = {version.name: missing for version in adapter.spec.versions}
    verdict = no(Reason.MODEL_DEPLOYMENT_NOT_FOUND, message)
    return LoraAdapterStatus(
        observed_generation=stamp.generation,
        versions=_versions(adapter.spec, previous, standings, stamp),
        summary=AdapterSummary(versions=f"0/{len(standings)}"),
        conditions=[stamp.condition(previous.conditions, ConditionType.READY, verdict)],
    )


def _only_ready(previous: LoraAdapterStatus, verdict: Verdict, stamp: Stamp) -> LoraAdapterStatus:
    ready = stamp.condition(previous.conditions, ConditionType.READY, verdict)
    return previous.model_copy(update={"observed_generation": stamp.generation, "conditions": [ready]})


def _ready(standings: Standings, split: Split, serving: bool) -> Verdict:
    """Ready when every version is resident, the split is as asked for and a pod serves; else the worst obstacle."""
    obstacles = {version: found for version, found in standings.items() if not found.resident}
    for version, found in sorted(obstacles.items(), key=lambda item: _severity(item[1])):
        if found.failed:
            message = f"{version}: {found.verdict.message}" + (f"; {split.note}" if split.note else "")
            return no(found.verdict.reason, message)
        if found.verdict.reason is Reason.POD_UNREACHABLE:
            return unknown(Reason.POD_UNREACHABLE, found.verdict.message)
        if found.verdict.reason is Reason.NO_PODS:
            return no(Reason.NO_PODS, found.verdict.message)
        return no(Reason.PROGRESSING, f"{version}: {found.verdict.message}")
    if split.note:
        return no(Reason.PROGRESSING, split.note)
    if not serving:
        return no(Reason.PROGRESSING, "resident, but no pod of the model is ready yet")
    return yes(
        Reason.READY, f"{len(standings)} of {len(standings)} versions resident; traffic {summary(split.targets)}"
    )


def _severity(found: Standing) -> tuple[bool, bool]:
    return not found.failed, not found.uncertain


def _versions(
    spec: LoraAdapterSpec, previous: LoraAdapterStatus, standings: Standings, stamp: Stamp
) -> list[VersionStatus]:
    known = {version.name: version for version in previous.versions}
    return [
        _version(name, known.get(name), standings[name], stamp) for name in (version.name for version in spec.versions)
    ]


def _version(name: str, old: VersionStatus | None, found: Standing, stamp: Stamp) -> VersionStatus:
    """One version. Versions never change, so what was once verified stays true while no pod says it anew."""
    found = _with_last_counts(found, old)
    facts = found.facts or old
    before: Sequence[Condition] = old.conditions if old else ()
    return VersionStatus(
        name=name,
        digest=facts.digest if facts else None,
        rank=facts.rank if facts else None,
        size_bytes=facts.size_bytes if facts else None,
        target_modules=facts.target_modules if facts else [],
        ready_on=found.ready_on,
        pods=found.pods,
        conditions=[stamp.condition(before, ConditionType.RESIDENT, found.verdict)],
    )


def _with_last_counts(found: Standing, old: VersionStatus | None) -> Standing:
    """While a pod is silent the counts are the last that were known: silence is not a loss."""
    silent = found.verdict.status is ConditionStatus.UNKNOWN and found.verdict.reason is Reason.POD_UNREACHABLE
    return replace(found, ready_on=old.ready_on, pods=old.pods) if silent and old is not None else found
