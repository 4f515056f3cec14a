"""What the Autoscaling condition says: whether the queue is being looked at, and why there are no more pods. Pure."""

from collections.abc import Sequence

from motet_api.modeldeployment import ModelDeploymentSpec
from motet_api.reasons import Reason
from motet_operator.conditions import Verdict, no, unknown, yes
from motet_operator.models.obstacles import obstacle
from motet_operator.snapshot import PodState
from motet_operator.views import Scaling


def autoscaling_verdict(spec: ModelDeploymentSpec | None, scaling: Scaling | None, pods: Sequence[PodState]) -> Verdict:
    """The condition. That more pods are wanted than can be had leaves it true: the scaler does its part."""
    if spec is None or spec.autoscaling is None:
        return no(Reason.NOT_CONFIGURED, "spec.autoscaling is absent")
    if scaling is None or scaling.active is None:
        return unknown(Reason.PROGRESSING, "the HorizontalPodAutoscaler has not looked yet")
    if not scaling.active:
        return no(Reason.METRIC_UNAVAILABLE, scaling.message)
    parts = ["the HorizontalPodAutoscaler reads its metric"]
    if scaling.desired is not None:
        least, most = spec.autoscaling.min_replicas, spec.autoscaling.max_replicas
        parts.append(f"it wants {scaling.desired} pods (from {least} to {most})")
    if scaling.limited:
        parts.append(scaling.limited)
    parts += _pending(pods)
    return yes(Reason.SCALING_ACTIVE, "; ".join(parts))


def _pending(pods: Sequence[PodState]) -> list[str]:
    """How many pods have been asked for and do not run, and what the first of them is waiting for."""
    waiting = [state for state in pods if not state.pod.running and not state.pod.ready]
    if not waiting:
        return []
    why = next(filter(None, map(obstacle, waiting)), "")
    return [f"{len(waiting)} of {len(pods)} pods do not run yet" + (f": {why}" if why else "")]
