"""Why pods are not ready, in words: those of Deployment, scheduler and kubelet, and of the pods themselves. Pure."""

from collections.abc import Sequence
from typing import Final

from motet_operator.adapters.residency import holds_back
from motet_operator.snapshot import PodState
from motet_operator.views import Rollout

_MOST: Final = 3


def obstacles(seen: Rollout, pods: Sequence[PodState]) -> list[str]:
    """What is waited for or complained of, each complaint once, with the number of pods that share it."""
    complaints: dict[str, int] = {}
    for state in pods:
        text = "" if state.pod.ready else obstacle(state)
        if text:
            complaints[text] = complaints.get(text, 0) + 1
    said = [text if count == 1 else f"{text} ({count} pods)" for text, count in complaints.items()]
    return [text for text in (seen.message, *said) if text][:_MOST]


def obstacle(state: PodState) -> str:
    """Why a pod is not ready; empty if nobody says."""
    if state.pod.problem or state.report is None:
        return state.pod.problem
    if not state.report.base_loaded:
        return f"{state.pod.name} loads the base model"
    if not state.report.desired_known:
        return f"{state.pod.name} has not been told its adapters"
    refused = [entry for entry in state.report.adapters if entry.proven and entry.reason.failed]
    for entry in refused:
        why = f"{entry.reason}: {entry.message}"
        return f"{state.pod.name} cannot serve {entry.id}, which pods of the spec before serve: {why}"
    waits = [f"{entry.id} ({entry.reason})" for entry in state.report.adapters if holds_back(entry.reason)]
    more = f" and {len(waits) - 1} more" if len(waits) > 1 else ""
    return f"{state.pod.name} is not ready without {waits[0]}{more}" if waits else ""
