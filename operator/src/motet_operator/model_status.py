"""The status of one ModelDeployment. Pure; the only author of its conditions."""

from collections.abc import Sequence

from motet_api.modeldeployment import AdapterCounts, ModelDeploymentSpec, ModelDeploymentStatus
from motet_api.names import MODEL_LABEL
from motet_api.reasons import ConditionType, Reason
from motet_operator.conditions import Stamp, Verdict, no, unknown, yes
from motet_operator.residency import Standing, holds_back
from motet_operator.snapshot import PodState
from motet_operator.views import Model, Rollout, Scaling

_NOTHING_YET = Rollout(current=False, replicas=0, ready=0, updated=0, message="")


def model_status(
    model: Model,
    rollout: Rollout | None,
    scaling: Scaling | None,
    pods: Sequence[PodState],
    standings: dict[str, Standing],
    stamp: Stamp,
    refusal: Verdict | None = None,
) -> ModelDeploymentStatus:
    """The status of a ModelDeployment.

    Args:
        standings: what is true of every version of every adapter, by runtime id.
        refusal: why a child cannot be made, if one cannot.
    """
    previous = model.status or ModelDeploymentStatus()
    seen = rollout or _NOTHING_YET
    resident = sum(found.resident for found in standings.values())
    verdicts = {
        ConditionType.READY: _ready(model.spec, model.error, seen, pods, refusal),
        ConditionType.AVAILABLE: _available(model.spec, seen, pods),
        ConditionType.ADAPTERS_RESIDENT: _adapters_resident(standings, resident),
        ConditionType.AUTOSCALING: _autoscaling(model.spec, scaling),
    }
    return ModelDeploymentStatus(
        observed_generation=stamp.generation,
        replicas=seen.replicas,
        ready_replicas=seen.ready,
        selector=f"{MODEL_LABEL}={model.meta.name}",
        adapters=AdapterCounts(
            desired=len(standings),
            resident=resident,
            failed=sum(found.failed for found in standings.values()),
            summary=f"{resident}/{len(standings)}",
        ),
        conditions=[stamp.condition(previous.conditions, kind, verdict) for kind, verdict in verdicts.items()],
    )


def _ready(
    spec: ModelDeploymentSpec | None, error: str, seen: Rollout, pods: Sequence[PodState], refusal: Verdict | None
) -> Verdict:
    """Ready is about what this object asks for: its pods. Adapters are other objects, with a Ready of their own."""
    if spec is None:
        return no(Reason.INVALID_SPEC, error)
    if refusal is not None:
        return refusal
    wanted = spec.replicas
    if seen.current and seen.ready == seen.updated == seen.replicas == wanted:
        return yes(Reason.READY, f"{wanted} of {wanted} pods ready")
    parts = [f"{seen.ready} of {wanted} pods ready"]
    if not seen.current or seen.updated < wanted:
        parts.append(f"{seen.updated} of the present spec")
    elif seen.replicas > seen.updated:
        parts.append(f"{seen.replicas - seen.updated} of an earlier spec still there")
    return no(Reason.PROGRESSING, "; ".join([*parts, *_obstacles(seen, pods)]))


def _available(spec: ModelDeploymentSpec | None, seen: Rollout, pods: Sequence[PodState]) -> Verdict:
    if seen.ready > 0:
        return yes(Reason.PODS_AVAILABLE, f"ready pods: {seen.ready}")
    if spec is not None and spec.replicas == 0:
        return no(Reason.PODS_UNAVAILABLE, "spec.replicas is 0")
    obstacles = _obstacles(seen, pods)
    return no(Reason.PODS_UNAVAILABLE, "; ".join(obstacles) or "no pod is ready yet")


def _obstacles(seen: Rollout, pods: Sequence[PodState]) -> list[str]:
    """What Deployment, scheduler, kubelet and the pods themselves wait for or complain of, each complaint once."""
    complaints = dict.fromkeys(_obstacle(state) for state in pods if not state.pod.ready)
    return [text for text in (seen.message, *complaints) if text][:3]


def _obstacle(state: PodState) -> str:
    """Why a pod is not ready; empty if nobody says."""
    if state.report is None or not state.pod.running:
        return state.pod.problem
    if not state.report.base_loaded:
        return f"{state.pod.name} loads the base model"
    waits = [f"{entry.id} ({entry.reason})" for entry in state.report.adapters if holds_back(entry.reason)]
    more = f" and {len(waits) - 1} more" if len(waits) > 1 else ""
    return f"{state.pod.name} is not ready without {waits[0]}{more}" if waits else ""


def _adapters_resident(standings: dict[str, Standing], resident: int) -> Verdict:
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


def _autoscaling(spec: ModelDeploymentSpec | None, scaling: Scaling | None) -> Verdict:
    if spec is None or spec.autoscaling is None:
        return no(Reason.NOT_CONFIGURED, "spec.autoscaling is absent")
    if scaling is None or scaling.active is None:
        return unknown(Reason.PROGRESSING, "the HorizontalPodAutoscaler has not looked yet")
    if scaling.active:
        return yes(Reason.SCALING_ACTIVE, "the HorizontalPodAutoscaler reads its metric")
    return no(Reason.METRIC_UNAVAILABLE, scaling.message)
