"""The status of one LoraAdapter. Pure; the only author of its conditions."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from motet_api.loraadapter import (
    AdapterSummary,
    LoraAdapterSpec,
    LoraAdapterStatus,
    MirrorTarget,
    TrafficTarget,
    VersionStatus,
)
from motet_api.objects import Condition, ConditionStatus
from motet_api.reasons import ConditionType, Reason
from motet_api.store import ArtifactReport, ArtifactState
from motet_operator.adapters.evidence import merge
from motet_operator.adapters.residency import Standing
from motet_operator.adapters.retiring import Answers, bounded, retirement
from motet_operator.adapters.rollout import RolloutPlan, Situation, kept_versions, plan_rollout
from motet_operator.adapters.traffic import Split, effective_split, summary
from motet_operator.adapters.version_conditions import (
    Store,
    Witnesses,
    compatible,
    digest_of,
    resident,
    resolved,
    verified,
)
from motet_operator.adapters.versions import Version, clashes, versions_of
from motet_operator.conditions import Stamp, Verdict, find, kstatus, no, unknown, yes
from motet_operator.views import Adapter

_STUCK = frozenset({Reason.INVALID_SPEC, Reason.ROLLED_BACK, Reason.ABORTED, Reason.GATEWAY_NOT_CONFIGURED})
"""Reasons of Ready that only a change of spec heals; of versions, `Standing.final` says it."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an adapter's status is made from beside the adapter: by version name, what pods and store say.

    `serving` says whether every model that has a version of it has a ready pod; `gateways` what they say of the
    adapter, None where there is none or none was asked; `judges` whether there is any.
    """

    standings: Mapping[str, Standing]
    serving: bool = False
    store: Store = Store.NONE
    artifacts: Mapping[str, ArtifactReport] = field(default_factory=dict)
    gateways: Answers | None = None
    judges: bool = True
    based: Collection[str] = ()
    """Versions of whose model a pod has said what its base is."""


@dataclass(frozen=True, slots=True)
class Said:
    """The status, and after how long to look again where a rollout waits for its time."""

    status: LoraAdapterStatus
    look_again: float | None = None


def adapter_status(adapter: Adapter, around: Surroundings, stamp: Stamp) -> Said:
    """The status of an adapter of which at least one ModelDeployment exists."""
    previous = adapter.status or LoraAdapterStatus()
    if adapter.spec is None:
        return Said(_only_ready(previous, no(Reason.INVALID_SPEC, adapter.error), stamp))
    versions, taken = versions_of(adapter), clashes(adapter)
    wanted, waits = _wanted(adapter.spec, previous, taken, around.standings)
    plan, split = _planned(adapter.spec, previous, wanted, around, stamp)
    rolled_out = no(Reason.WAITING, waits) if waits and plan.verdict.true else _rolled_out(plan, split)
    asked = {version.name: around.standings[version.name] for version in versions if version.in_spec}
    ready = _ready(asked, split, rolled_out, around.serving)
    if taken:
        ready = no(Reason.INVALID_SPEC, "; ".join(taken.values()))
    verdicts = {
        ConditionType.READY: ready,
        ConditionType.ROLLED_OUT: rolled_out,
        **kstatus(ready, stuck=_stuck(asked, ready)),
    }
    resident = sum(found.resident for found in asked.values())
    status = LoraAdapterStatus(
        observed_generation=stamp.generation,
        versions=_versions(versions, previous, split, kept_versions(plan.status), around, stamp),
        traffic=list(split.targets),
        mirror=_mirror(adapter.spec, plan, taken, around.standings),
        rollout=plan.status,
        summary=AdapterSummary(
            traffic=summary(split.targets), versions=f"{resident}/{len(adapter.spec.versions)}", rollout=plan.summary
        ),
        conditions=[stamp.condition(previous.conditions, kind, verdict) for kind, verdict in verdicts.items()],
    )
    return Said(status, plan.look_again)


def _wanted(
    spec: LoraAdapterSpec,
    previous: LoraAdapterStatus,
    taken: Mapping[str, str],
    standings: Mapping[str, Standing],
) -> tuple[Sequence[TrafficTarget], str]:
    """The split to go to, and why it is not spec's, if so.

    While spec gives a share to a version whose name is taken, all goes on as before: nothing else has that name.
    """
    asked = spec.wanted_traffic()
    named = [target.version for target in asked if target.weight > 0 and target.version in taken]
    if not named:
        return asked, ""
    under_way = previous.rollout if spec.rollout is not None else None
    if under_way is not None and all(target.version in standings for target in under_way.target):
        return under_way.target, taken[named[0]]
    return previous.traffic, taken[named[0]]


def _planned(
    spec: LoraAdapterSpec,
    previous: LoraAdapterStatus,
    wanted: Sequence[TrafficTarget],
    around: Surroundings,
    stamp: Stamp,
) -> tuple[RolloutPlan, Split]:
    """The rollout's plan, and the split that is in effect by it.

    The plan is made once more from the new split, so that what is said of the rollout is about the split beside it.
    """
    seen = Situation(
        wanted=tuple(wanted),
        in_effect=tuple(previous.traffic),
        resident={name: found.resident for name, found in around.standings.items()},
        evidence=merge(around.gateways) if around.gateways is not None else None,
        now=stamp.now,
        judges=around.judges,
    )
    plan = plan_rollout(spec.rollout, previous.rollout, seen)
    split = effective_split(plan.wanted_now, previous.traffic, around.standings, plan.gaining, back=plan.back)
    if list(split.targets) != previous.traffic:
        plan = plan_rollout(spec.rollout, plan.status, replace(seen, in_effect=split.targets, evidence=None))
    return plan, split


def _mirror(
    spec: LoraAdapterSpec, plan: RolloutPlan, taken: Collection[str], standings: Mapping[str, Standing]
) -> list[MirrorTarget]:
    """The copies that spec and the rollout ask for, to versions that can answer them."""
    asked = [target for target in spec.mirror if target.version not in taken]
    wanted = {target.version: target for target in (*asked, *plan.mirror)}
    return [target for name, target in wanted.items() if name in standings and standings[name].resident]


def orphan_status(adapter: Adapter, model: str, stamp: Stamp) -> LoraAdapterStatus:
    """The status of an adapter whose ModelDeployment does not exist: nothing holds it and nothing is served."""
    previous = adapter.status or LoraAdapterStatus()
    if adapter.spec is None:
        return _only_ready(previous, no(Reason.INVALID_SPEC, adapter.error), stamp)
    message = f"spec.modelRef names ModelDeployment {model!r}, which does not exist"
    around = Surroundings({version.name: missing_model(message) for version in versions_of(adapter)})
    ready = no(Reason.MODEL_DEPLOYMENT_NOT_FOUND, message)
    verdicts = {
        ConditionType.READY: ready,
        ConditionType.ROLLED_OUT: no(Reason.WAITING, message),
        # Somebody may be about to apply it.
        **kstatus(ready, stuck=False),
    }
    versions = [version for version in versions_of(adapter) if version.in_spec]
    return LoraAdapterStatus(
        observed_generation=stamp.generation,
        versions=_versions(versions, previous, Split(()), (), around, stamp),
        summary=AdapterSummary(versions=f"0/{len(versions)}"),
        conditions=[stamp.condition(previous.conditions, kind, verdict) for kind, verdict in verdicts.items()],
    )


def missing_model(message: str) -> Standing:
    """What is true of a version whose ModelDeployment does not exist."""
    return Standing(unknown(Reason.MODEL_DEPLOYMENT_NOT_FOUND, message))


def _only_ready(previous: LoraAdapterStatus, ready: Verdict, stamp: Stamp) -> LoraAdapterStatus:
    """Spec cannot be understood: what is served goes on as it is."""
    verdicts = {ConditionType.READY: ready, **kstatus(ready, stuck=True)}
    kept = [entry for entry in previous.conditions if entry.type not in set(verdicts)]
    said = [stamp.condition(previous.conditions, kind, verdict) for kind, verdict in verdicts.items()]
    return previous.model_copy(update={"observed_generation": stamp.generation, "conditions": [*kept, *said]})


def _rolled_out(plan: RolloutPlan, split: Split) -> Verdict:
    """The plan's verdict; where it waits, the split knows better for what."""
    if split.note and plan.verdict.reason is Reason.WAITING:
        return no(Reason.WAITING, split.note)
    return plan.verdict


def _ready(standings: Mapping[str, Standing], split: Split, rolled_out: Verdict, serving: bool) -> Verdict:
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
    if not rolled_out.true:
        reason = Reason.PROGRESSING if rolled_out.reason is Reason.WAITING else rolled_out.reason
        return no(reason, rolled_out.message)
    if not serving:
        return no(Reason.PROGRESSING, "resident, but no pod of the model is ready yet")
    return yes(
        Reason.READY, f"{len(standings)} of {len(standings)} versions resident; traffic {summary(split.targets)}"
    )


def _stuck(standings: Mapping[str, Standing], ready: Verdict) -> bool:
    return ready.reason in _STUCK or any(found.final for found in standings.values())


def _severity(found: Standing) -> tuple[bool, bool]:
    return not found.failed, not found.uncertain


def _versions(
    versions: Sequence[Version],
    previous: LoraAdapterStatus,
    split: Split,
    kept: Collection[str],
    around: Surroundings,
    stamp: Stamp,
) -> list[VersionStatus]:
    """Every version in spec, and of those that have left it the ones that may not go yet."""
    needed = {target.version for target in (*previous.traffic, *split.targets) if target.weight > 0}.union(kept)
    found: list[VersionStatus] = []
    for version in versions:
        name = version.name
        seen = Witnesses(around.standings[name], around.store, around.artifacts.get(name), name in around.based)
        retiring = None
        if not version.in_spec:
            leaving = retirement(version, needed, previous.traffic, seen.standing, around.gateways, stamp.now)
            if leaving.over:
                continue
            retiring = leaving.verdict
        elif _was_retiring(version):
            retiring = no(Reason.NOT_STALLED, "it is in spec.versions again")
        found.append(_version(version, seen, retiring, stamp))
    return bounded(found)


def _was_retiring(version: Version) -> bool:
    return version.recorded is not None and find(version.recorded.conditions, ConditionType.RETIRING) is not None


def _version(version: Version, seen: Witnesses, retiring: Verdict | None, stamp: Stamp) -> VersionStatus:
    """One version. Versions never change, so what was once verified stays true while nobody says it anew."""
    old, artifact = version.recorded, seen.artifact
    found = _with_last_counts(seen.standing, old)
    # What a pod has found outlasts what the store says: its form of the weights may be larger, and whether there is
    # room for a version must not depend on whether it has a place.
    recorded = old if old is not None and old.size_bytes is not None and old.rank is not None else None
    facts = found.facts or recorded or (artifact if artifact is not None and artifact.rank is not None else None)
    before: Sequence[Condition] = old.conditions if old else ()
    verdicts = {
        ConditionType.RESOLVED: resolved(version, seen),
        ConditionType.VERIFIED: verified(version, seen),
        ConditionType.COMPATIBLE: compatible(version, seen),
        ConditionType.RESIDENT: resident(seen),
    }
    if retiring is not None:
        verdicts[ConditionType.RETIRING] = retiring
    return VersionStatus(
        name=version.name,
        source=version.source,
        model_ref=version.model_ref,
        digest=_recorded_digest(version, seen),
        revision=_recorded_revision(version, seen),
        rank=facts.rank if facts else None,
        size_bytes=facts.size_bytes if facts else _listed_bytes(old, artifact),
        held_bytes=facts.held_bytes if facts else None,
        target_modules=facts.target_modules if facts else [],
        ready_on=found.ready_on,
        pods=found.pods,
        conditions=[stamp.condition(before, kind, verdict) for kind, verdict in verdicts.items()],
    )


def _listed_bytes(old: VersionStatus | None, artifact: ArtifactReport | None) -> int | None:
    """What the source says that it has, before it is fetched: quota is given by it."""
    if artifact is not None and artifact.state is ArtifactState.LISTED:
        return artifact.size_bytes
    return old.size_bytes if old is not None else None


def _recorded_digest(version: Version, seen: Witnesses) -> str | None:
    """What was found, not what was asked for: spec may name a digest that the bytes do not have."""
    if version.recorded is not None and version.recorded.digest is not None:
        return version.recorded.digest
    if version.source.digest is None:
        return digest_of(version, seen)
    found = seen.artifact if version.source.remote else seen.standing.facts
    return found.digest if found else None


def _recorded_revision(version: Version, seen: Witnesses) -> str | None:
    """Where the bytes that hold were found last."""
    found, digest = seen.artifact, version.recorded.digest if version.recorded else None
    if (
        found is not None
        and found.state is ArtifactState.VERIFIED
        and found.revision
        and digest in (None, found.digest)
    ):
        return found.revision
    return version.recorded.revision if version.recorded else None


def _with_last_counts(found: Standing, old: VersionStatus | None) -> Standing:
    """While a pod is silent the counts are the last that were known: silence is not a loss."""
    silent = found.verdict.status is ConditionStatus.UNKNOWN and found.verdict.reason is Reason.POD_UNREACHABLE
    return replace(found, ready_on=old.ready_on, pods=old.pods) if silent and old is not None else found
