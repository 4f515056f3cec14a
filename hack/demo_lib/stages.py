"""From the first queued request to the first token of a new pod: what happened when, by what the cluster itself says.

Each time is the moment at which an observer of the API or the gateway first saw the thing, in seconds of one clock.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Stage(StrEnum):
    """The steps of scaling up, in order."""

    QUEUED = "first request waits at the gateway"
    SIGNAL = "the metric is above its target"
    DECISION = "the HPA asks for a second pod"
    CREATED = "the pod exists"
    STARTED = "its container runs"
    READY = "it is Ready: base and adapters are resident"
    ANSWERED = "its first token reaches a client"


@dataclass(slots=True)
class Timeline:
    """The first moment at which each stage was seen. `new_pod` is the pod that the burst brought up."""

    known_pods: frozenset[str]
    seen: dict[Stage, float] = field(default_factory=dict)
    new_pod: str | None = None

    def mark(self, stage: Stage, at: float) -> None:
        """Note a stage, unless it was seen before."""
        self.seen.setdefault(stage, at)

    def see_demand(self, demand: dict[str, Any], namespace: str, name: str, at: float) -> None:
        """Take in the gateway's demand document."""
        for model in demand["models"]:
            if (model["namespace"], model["name"]) == (namespace, name) and model["waiting"] > 0:
                self.mark(Stage.QUEUED, at)

    def see_metric(self, depth: float, target: float, at: float) -> None:
        """Take in the value that the metrics API serves."""
        if depth > target:
            self.mark(Stage.SIGNAL, at)

    def see_model(self, model: dict[str, Any], at: float) -> None:
        """Take in a ModelDeployment: the HPA writes its decision to spec.replicas."""
        if model["spec"].get("replicas", 1) > len(self.known_pods):
            self.mark(Stage.DECISION, at)

    def see_pod(self, pod: dict[str, Any], at: float) -> None:
        """Take in a pod of the model."""
        name = pod["metadata"]["name"]
        if name in self.known_pods or self.new_pod not in {None, name}:
            return
        self.new_pod = name
        self.mark(Stage.CREATED, at)
        statuses = pod.get("status", {}).get("containerStatuses", [])
        if any("running" in status.get("state", {}) for status in statuses):
            self.mark(Stage.STARTED, at)
        conditions = pod.get("status", {}).get("conditions", [])
        if any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions):
            self.mark(Stage.READY, at)

    def see_token(self, pod: str, at: float) -> None:
        """Take in the first token of an answer."""
        if pod == self.new_pod:
            self.mark(Stage.ANSWERED, at)

    @property
    def complete(self) -> bool:
        """Whether the new pod has answered."""
        return Stage.ANSWERED in self.seen

    def rows(self) -> list[tuple[str, str, str]]:
        """Stage, seconds since the first queued request, seconds since the stage before. A stage not seen says so."""
        start = self.seen.get(Stage.QUEUED)
        rows = []
        before = start
        for stage in Stage:
            at = self.seen.get(stage)
            if at is None or start is None or before is None:
                rows.append((stage.value, "not seen", ""))
                continue
            rows.append((stage.value, f"{at - start:.1f}", f"{at - before:.1f}"))
            before = at
        return rows
