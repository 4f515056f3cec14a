"""The part of each watched object that decisions go by, read once when the object arrives. Pure."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

from pydantic import ValidationError

from motet_api.loraadapter import LoraAdapterSpec, LoraAdapterStatus, ModelRef
from motet_api.modeldeployment import ModelDeploymentSpec, ModelDeploymentStatus
from motet_api.names import (
    AGENT_CONTAINER,
    FETCH_CONTAINER,
    FETCHED_ARTIFACT,
    FIELD_MANAGER,
    MANAGED_BY,
    MANAGED_BY_LABEL,
    RUNTIME_CONTAINER,
)
from motet_api.objects import KubeModel, ObjectMeta
from motet_operator.keys import Kind, ObjectName, RawObject
from motet_operator.salvage import salvaged

SpecT = TypeVar("SpecT", bound=KubeModel)
StatusT = TypeVar("StatusT", bound=KubeModel)

_ASKED: Final = frozenset({RUNTIME_CONTAINER, AGENT_CONTAINER})
"""The container that answers the operator: a pod has one of them."""


@dataclass(frozen=True, slots=True)
class Declared(Generic[SpecT, StatusT]):
    """An object of ours. `spec` is None, and `error` says why, where it passed admission and cannot be understood;
    `reference` is what its spec.modelRef says all the same.
    """

    meta: ObjectMeta
    spec: SpecT | None
    status: StatusT | None
    error: str = ""
    reference: ModelRef | None = None

    @property
    def deleting(self) -> bool:
        """Whether it is on its way out."""
        return self.meta.deletion_timestamp is not None

    @property
    def name(self) -> ObjectName:
        """Namespace and name."""
        return self.meta.namespace, self.meta.name


Model = Declared[ModelDeploymentSpec, ModelDeploymentStatus]
Adapter = Declared[LoraAdapterSpec, LoraAdapterStatus]


@dataclass(frozen=True, slots=True)
class Child:
    """What is known of any object that the operator makes."""

    name: str
    uid: str
    owner: str
    """uid of the controlling owner; empty if there is none."""
    ours: bool
    """Whether it says that the operator manages it."""
    owned_fields: str
    """Digest of the fields that our field manager owns: changes when anybody takes one of them over."""
    deleting: bool


@dataclass(frozen=True, slots=True)
class Rollout:
    """How far a Deployment is. `current` says whether these numbers are about its latest generation."""

    current: bool
    replicas: int
    ready: int
    updated: int
    message: str
    stuck: bool = False
    """Whether it has given up waiting for its pods (its progress deadline is over)."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """Whether a HorizontalPodAutoscaler can read its metric; None before it has said so.

    `limited` says why it wants other numbers than it may have; `desired` is None before it has wanted any.
    """

    active: bool | None
    message: str
    desired: int | None = None
    limited: str = ""


@dataclass(frozen=True, slots=True)
class Prefetching:
    """How far a DaemonSet is: nodes that it should be on, and those where its present pods are ready."""

    current: bool
    nodes: int
    ready: int


@dataclass(frozen=True, slots=True)
class Pod:
    """A runtime pod that is not on its way out. `running` is about the container that answers the operator; `problem`
    is why any of its containers does not run. `template` tells apart which form of the Deployment it was made from.
    """

    name: str
    ip: str
    running: bool
    ready: bool
    started: datetime | None
    problem: str
    template: str = ""
    base: str = ""
    """Digest of the base that it fetches before it starts; empty where it reads one by itself."""


@dataclass(frozen=True, slots=True)
class ChildView:
    """A child, and what its own status adds."""

    child: Child
    rollout: Rollout | None = None
    scaling: Scaling | None = None
    prefetching: Prefetching | None = None


@dataclass(frozen=True, slots=True)
class NamespaceLabels:
    """What a model may select namespaces by."""

    labels: Mapping[str, str]


View = Model | Adapter | ChildView | Pod | NamespaceLabels
Raw = Mapping[str, Any]


def read(kind: Kind, raw: RawObject) -> View | None:
    """The view of an object; None for a pod that is finished or on its way out, which nobody counts on any more."""
    match kind:
        case Kind.MODEL_DEPLOYMENT:
            return _declared(raw, ModelDeploymentSpec, ModelDeploymentStatus)
        case Kind.LORA_ADAPTER:
            return _declared(raw, LoraAdapterSpec, LoraAdapterStatus)
        case Kind.POD:
            return _pod(raw)
        case Kind.NAMESPACE:
            return NamespaceLabels(raw["metadata"].get("labels") or {})
        case Kind.DEPLOYMENT:
            return ChildView(_child(raw), rollout=_rollout(raw))
        case Kind.AUTOSCALER:
            return ChildView(_child(raw), scaling=_scaling(raw))
        case Kind.PREFETCHER:
            return ChildView(_child(raw), prefetching=_prefetching(raw))
        case _:
            return ChildView(_child(raw))


def _declared(raw: Raw, spec_type: type[SpecT], status_type: type[StatusT]) -> Declared[SpecT, StatusT]:
    meta = ObjectMeta.model_validate(raw["metadata"])
    # Written by a newer or older operator, it may not be understood as a whole. What is not is written anew.
    status = salvaged(status_type, raw["status"]) if raw.get("status") else None
    try:
        return Declared(meta, spec_type.model_validate(raw.get("spec")), status)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in ("spec", *first["loc"]))
        return Declared(meta, None, status, f"{field}: {first['msg']}", _reference(raw.get("spec")))


def _reference(spec: object) -> ModelRef | None:
    try:
        return ModelRef.model_validate(spec["modelRef"]) if isinstance(spec, dict) and "modelRef" in spec else None
    except ValidationError:
        return None


def _child(raw: Raw) -> Child:
    metadata = raw["metadata"]
    owner = next((ref for ref in metadata.get("ownerReferences") or [] if ref.get("controller")), None)
    fields = [
        entry.get("fieldsV1")
        for entry in metadata.get("managedFields") or []
        if entry.get("manager") == FIELD_MANAGER and not entry.get("subresource")
    ]
    return Child(
        name=metadata["name"],
        uid=metadata["uid"],
        owner=owner["uid"] if owner else "",
        ours=(metadata.get("labels") or {}).get(MANAGED_BY_LABEL) == MANAGED_BY,
        owned_fields=hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16],
        deleting="deletionTimestamp" in metadata,
    )


def _rollout(raw: Raw) -> Rollout:
    status = raw.get("status") or {}
    conditions = {(entry["type"], entry["status"]): entry for entry in status.get("conditions") or []}
    stuck = conditions.get(("Progressing", "False"), {})
    # Why no pod can be made (a quota, an admission policy) comes before the mere fact that there is none.
    troubles = [entry.get("message", "") for entry in (conditions.get(("ReplicaFailure", "True"), {}), stuck)]
    return Rollout(
        current=status.get("observedGeneration", 0) >= raw["metadata"].get("generation", 0),
        replicas=status.get("replicas", 0),
        ready=status.get("readyReplicas", 0),
        updated=status.get("updatedReplicas", 0),
        message="; ".join(filter(None, troubles)),
        stuck=bool(stuck),
    )


def _scaling(raw: Raw) -> Scaling:
    status = raw.get("status") or {}
    conditions = {entry["type"]: entry for entry in status.get("conditions") or []}
    able, active, limited = (conditions.get(name) for name in ("AbleToScale", "ScalingActive", "ScalingLimited"))
    if able is not None and able["status"] == "False":
        return Scaling(False, able.get("message", ""))
    if active is None:
        return Scaling(None, "")
    return Scaling(
        active=active["status"] == "True",
        message=active.get("message", ""),
        desired=status.get("desiredReplicas"),
        limited=limited.get("message", "") if limited is not None and limited["status"] == "True" else "",
    )


def _prefetching(raw: Raw) -> Prefetching:
    status = raw.get("status") or {}
    current = status.get("observedGeneration", 0) >= raw["metadata"].get("generation", 0)
    # A pod of an older template is ready and holds something else.
    ready = min(status.get("numberReady", 0), status.get("updatedNumberScheduled", 0)) if current else 0
    return Prefetching(current, status.get("desiredNumberScheduled", 0), ready)


def _pod(raw: Raw) -> Pod | None:
    metadata, status = raw["metadata"], raw.get("status") or {}
    if "deletionTimestamp" in metadata or status.get("phase") in {"Succeeded", "Failed"}:
        return None
    statuses = status.get("containerStatuses") or []
    container: Raw = next((entry for entry in statuses if entry["name"] in _ASKED), {})
    running = (container.get("state") or {}).get("running")
    conditions = {entry["type"]: entry for entry in status.get("conditions") or []}
    return Pod(
        name=metadata["name"],
        ip=status.get("podIP", ""),
        running=running is not None and bool(status.get("podIP")),
        ready=conditions.get("Ready", {}).get("status") == "True",
        started=datetime.fromisoformat(running["startedAt"]) if running and running.get("startedAt") else None,
        problem=_problem([*(status.get("initContainerStatuses") or []), *statuses], conditions.get("PodScheduled", {})),
        template=(metadata.get("labels") or {}).get("pod-template-hash", ""),
        base=_base(raw.get("spec") or {}),
    )


def _base(spec: Raw) -> str:
    fetching: Raw = next((entry for entry in spec.get("initContainers") or [] if entry["name"] == FETCH_CONTAINER), {})
    named = (word.partition("=") for word in fetching.get("args") or [])
    return next((value for option, _, value in named if option == FETCHED_ARTIFACT), "")


def _problem(containers: Sequence[Raw], scheduled: Raw) -> str:
    """Why a container does not run, in the words of kubelet or scheduler: the first one that has a problem."""
    if scheduled.get("status") == "False":
        return f"{scheduled.get('reason', '')}: {scheduled.get('message', '')}"
    return next(filter(None, map(_container_problem, containers)), "")


def _container_problem(container: Raw) -> str:
    name, state = container.get("name", ""), container.get("state") or {}
    waiting, ended = state.get("waiting"), state.get("terminated")
    last = (container.get("lastState") or {}).get("terminated") or {}
    if waiting is not None and waiting.get("reason") not in {"ContainerCreating", "PodInitializing"}:
        code = last.get("exitCode")
        suffix = f" (last exit code {code}{_said_at_the_end(last)})" if code is not None else ""
        return f"{_whose(name)}{waiting.get('reason', '')}: {waiting.get('message', '')}{suffix}"
    if ended is not None and ended.get("exitCode"):
        return f"{_whose(name)}{ended.get('reason', '')}: exit code {ended['exitCode']}"
    return ""


def _said_at_the_end(ended: Raw) -> str:
    """Why it ended, where that says more than its exit code: OOMKilled."""
    reason = ended.get("reason", "")
    return f", {reason}" if reason not in {"", "Error", "Completed"} and "exitCode" in ended else ""


def _whose(container: str) -> str:
    """Which container it is about, where it is not the one that everybody expects."""
    return "" if container == RUNTIME_CONTAINER else f"container {container}: "
