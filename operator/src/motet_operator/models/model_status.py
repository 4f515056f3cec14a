"""The status of one ModelDeployment. Pure; the only author of its conditions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from motet_api.modeldeployment import (
    AdapterCounts,
    ModelDeploymentSpec,
    ModelDeploymentStatus,
    ModelSummary,
    PrefetchStatus,
)
from motet_api.names import MODEL_LABEL
from motet_api.reasons import ConditionType, Reason
from motet_operator.adapters.residency import Standing
from motet_operator.conditions import Stamp, Verdict, kstatus, no, unknown, yes
from motet_operator.keys import Kind
from motet_operator.models.base_source import BaseSource
from motet_operator.models.obstacles import obstacles
from motet_operator.models.prefetcher import prefetches
from motet_operator.models.scaling_status import autoscaling_verdict
from motet_operator.snapshot import PodState
from motet_operator.views import ChildView, Model, Prefetching, Rollout

_NOTHING_YET = Rollout(current=False, replicas=0, ready=0, updated=0, message="")


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the status of a ModelDeployment is about: its children and pods, its adapters' versions, its base.

    `standings` is by runtime id; `refusal` says why a child cannot be made, if one cannot.
    """

    children: Mapping[Kind, ChildView]
    pods: Sequence[PodState]
    standings: Mapping[str, Standing]
    source: BaseSource
    refusal: Verdict | None = None

    @property
    def rollout(self) -> Rollout:
        """How far the Deployment is; zeros where there is none."""
        view = self.children.get(Kind.DEPLOYMENT)
        return (view.rollout if view is not None else None) or _NOTHING_YET


def model_status(model: Model, facts: ModelFacts, stamp: Stamp) -> ModelDeploymentStatus:
    """The status of a ModelDeployment."""
    previous = model.status or ModelDeploymentStatus()
    seen, standings = facts.rollout, facts.standings
    resident = sum(found.resident for found in standings.values())
    scaling, prefetching = facts.children.get(Kind.AUTOSCALER), facts.children.get(Kind.PREFETCHER)
    nodes = prefetching.prefetching if prefetching is not None else None
    ready = _ready(model, facts)
    verdicts = {
        ConditionType.READY: ready,
        ConditionType.AVAILABLE: _available(model.spec, facts),
        ConditionType.ADAPTERS_RESIDENT: _adapters_resident(standings, resident),
        ConditionType.AUTOSCALING: autoscaling_verdict(model.spec, scaling.scaling if scaling else None, facts.pods),
        ConditionType.SOURCE_RESOLVED: facts.source.verdict,
        ConditionType.PREFETCH_COMPLETE: _prefetched(model.spec, nodes),
        **kstatus(ready, _stuck(ready, facts)),
    }
    return ModelDeploymentStatus(
        observed_generation=stamp.generation,
        replicas=seen.replicas,
        ready_replicas=seen.ready,
        selector=f"{MODEL_LABEL}={model.meta.name}",
        source=facts.source.effective,
        prefetch=PrefetchStatus(ready=nodes.ready, nodes=nodes.nodes) if nodes is not None else None,
        adapters=AdapterCounts(
            desired=len(standings),
            resident=resident,
            failed=sum(found.failed for found in standings.values()),
            summary=f"{resident}/{len(standings)}",
        ),
        summary=ModelSummary(pods=f"{seen.ready}/{model.spec.replicas if model.spec else '?'}"),
        conditions=[stamp.condition(previous.conditions, kind, verdict) for kind, verdict in verdicts.items()],
    )


def _ready(model: Model, facts: ModelFacts) -> Verdict:
    """Ready is about what this object asks for: its pods. Adapters are other objects, with a Ready of their own."""
    spec, seen = model.spec, facts.rollout
    if spec is None:
        return no(Reason.INVALID_SPEC, model.error)
    if facts.refusal is not None:
        return facts.refusal
    if not facts.source.current:
        verdict = facts.source.verdict
        return no(verdict.reason, verdict.message)
    wanted = spec.replicas
    if seen.current and seen.ready == seen.updated == seen.replicas == wanted:
        return yes(Reason.READY, f"{wanted} of {wanted} pods ready")
    parts = [f"{seen.ready} of {wanted} pods ready"]
    if not seen.current or seen.updated < wanted:
        parts.append(f"{seen.updated} of the present spec")
    elif seen.replicas > seen.updated:
        parts.append(f"{seen.replicas - seen.updated} of an earlier spec still there")
    return no(Reason.PROGRESSING, "; ".join([*parts, *obstacles(seen, facts.pods)]))


def _stuck(ready: Verdict, facts: ModelFacts) -> bool:
    """Whether somebody must change something before it can become ready."""
    helpless = facts.refusal is not None or facts.source.final or facts.rollout.stuck
    return helpless or ready.reason is Reason.INVALID_SPEC


def _available(spec: ModelDeploymentSpec | None, facts: ModelFacts) -> Verdict:
    if facts.rollout.ready > 0:
        return yes(Reason.PODS_AVAILABLE, f"ready pods: {facts.rollout.ready}")
    if spec is not None and spec.replicas == 0:
        return no(Reason.PODS_UNAVAILABLE, "spec.replicas is 0")
    if facts.source.effective is None:
        return no(Reason.PODS_UNAVAILABLE, f"there is no base to serve yet: {facts.source.verdict.message}")
    return no(Reason.PODS_UNAVAILABLE, "; ".join(obstacles(facts.rollout, facts.pods)) or "no pod is ready yet")


def _adapters_resident(standings: Mapping[str, Standing], resident: int) -> Verdict:
    if resident == len(standings):
        return yes(Reason.ADAPTERS_RESIDENT, f"{resident} of {resident} versions resident")
    failed = {name: found for name, found in standings.items() if found.failed}
    if failed:
        name, first = next(iter(sorted(failed.items())))
        more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
        return no(Reason.ADAPTERS_FAILED, f"{name}: {first.verdict.reason}: {first.verdict.message}{more}")
    uncertain = next((found for found in standings.values() if found.uncertain), None)
    if uncertain is not None:
        return Verdict(uncertain.verdict.status, uncertain.verdict.reason, uncertain.verdict.message)
    return no(Reason.PROGRESSING, f"{resident} of {len(standings)} versions resident")


def _prefetched(spec: ModelDeploymentSpec | None, seen: Prefetching | None) -> Verdict:
    if spec is None or not prefetches(spec):
        return no(Reason.NOT_CONFIGURED, "spec.startup.prefetch asks for nothing")
    if seen is None or not seen.current:
        return unknown(Reason.PROGRESSING, "the DaemonSet has not been looked at yet")
    message = f"{seen.ready} of {seen.nodes} nodes ready"
    return yes(Reason.PREFETCHED, message) if seen.ready == seen.nodes else no(Reason.PROGRESSING, message)
