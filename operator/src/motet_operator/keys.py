"""What is watched, and which ModelDeployment each object belongs to: the unit of work is one ModelDeployment."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from motet_api.names import (
    GROUP,
    LORA_ADAPTER_KIND,
    LORA_ADAPTER_PLURAL,
    MODEL_DEPLOYMENT_KIND,
    MODEL_DEPLOYMENT_PLURAL,
    MODEL_LABEL,
    VERSION,
)

RawObject = Mapping[str, Any]
"""An object as the API server sends it."""
ObjectName = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True, slots=True, order=True)
class ModelKey:
    """The unit of work: one ModelDeployment with all that belongs to it, whether or not it exists."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Kind(StrEnum):
    """Kinds of objects that the operator reads; the values are the kinds' own names."""

    MODEL_DEPLOYMENT = MODEL_DEPLOYMENT_KIND
    LORA_ADAPTER = LORA_ADAPTER_KIND
    DEPLOYMENT = "Deployment"
    SERVICE = "Service"
    SERVICE_ACCOUNT = "ServiceAccount"
    AUTOSCALER = "HorizontalPodAutoscaler"
    DISRUPTION_BUDGET = "PodDisruptionBudget"
    NETWORK_POLICY = "NetworkPolicy"
    PREFETCHER = "DaemonSet"
    POD = "Pod"
    NAMESPACE = "Namespace"


CHILDREN: Final = (
    Kind.SERVICE_ACCOUNT,
    Kind.SERVICE,
    Kind.NETWORK_POLICY,
    Kind.DISRUPTION_BUDGET,
    Kind.PREFETCHER,
    Kind.DEPLOYMENT,
    Kind.AUTOSCALER,
)
"""Kinds that the operator makes, in the order in which they are needed."""


def child_name(kind: Kind, model: str) -> str:
    """The name of a ModelDeployment's child: its own, but for the DaemonSet, whose pods must not look like its pods."""
    return f"{model}-prefetch" if kind is Kind.PREFETCHER else model


@dataclass(frozen=True, slots=True)
class Resource:
    """Where the objects of a kind are found in the API."""

    group: str
    version: str
    plural: str
    labelled: bool
    """Whether only objects that carry the model label are ours to see."""

    @property
    def api_version(self) -> str:
        """As an object's `apiVersion` says it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def selector(self) -> dict[str, str]:
        """The query parameter that leaves out what is not ours to see."""
        return {"labelSelector": MODEL_LABEL} if self.labelled else {}

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """Path of the collection (in a namespace, or None for all), or of one object or its subresource."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        scope = f"/namespaces/{namespace}" if namespace else ""
        parts = [root + scope, self.plural, name, subresource]
        return "/".join(part for part in parts if part)


RESOURCES: Final[Mapping[Kind, Resource]] = {
    Kind.MODEL_DEPLOYMENT: Resource(GROUP, VERSION, MODEL_DEPLOYMENT_PLURAL, labelled=False),
    Kind.LORA_ADAPTER: Resource(GROUP, VERSION, LORA_ADAPTER_PLURAL, labelled=False),
    Kind.DEPLOYMENT: Resource("apps", "v1", "deployments", labelled=True),
    Kind.SERVICE: Resource("", "v1", "services", labelled=True),
    Kind.SERVICE_ACCOUNT: Resource("", "v1", "serviceaccounts", labelled=True),
    Kind.AUTOSCALER: Resource("autoscaling", "v2", "horizontalpodautoscalers", labelled=True),
    Kind.DISRUPTION_BUDGET: Resource("policy", "v1", "poddisruptionbudgets", labelled=True),
    Kind.NETWORK_POLICY: Resource("networking.k8s.io", "v1", "networkpolicies", labelled=True),
    Kind.PREFETCHER: Resource("apps", "v1", "daemonsets", labelled=True),
    Kind.POD: Resource("", "v1", "pods", labelled=True),
    Kind.NAMESPACE: Resource("", "v1", "namespaces", labelled=False),
}


def seen_kinds(namespaces: Collection[str]) -> tuple[Kind, ...]:
    """What is listed and watched: an operator that is limited to some namespaces sees no Namespace objects."""
    return tuple(kind for kind in Kind if kind is not Kind.NAMESPACE or not namespaces)


def models_of(kind: Kind, raw: RawObject) -> tuple[ModelKey, ...]:
    """The ModelDeployments that an object belongs to: by its own name, its references or its label.

    The first of a LoraAdapter's is its home, spec.modelRef; the others are those that its versions sit on.
    """
    metadata = raw.get("metadata") or {}
    namespace = metadata.get("namespace", "")
    match kind:
        case Kind.MODEL_DEPLOYMENT:
            name = metadata.get("name")
        case Kind.NAMESPACE:
            return ()
        case Kind.LORA_ADAPTER:
            return tuple(dict.fromkeys(_references(raw, namespace)))
        case _:
            name = (metadata.get("labels") or {}).get(MODEL_LABEL)
    return (ModelKey(namespace, name),) if isinstance(name, str) and name else ()


def _references(raw: RawObject, namespace: str) -> Iterator[ModelKey]:
    """What a LoraAdapter refers to, or has referred to with versions that its status still has."""
    spec, status = raw.get("spec") or {}, raw.get("status") or {}
    versions = [*(spec.get("versions") or []), *(status.get("versions") or [])]
    for holder in (spec, *versions):
        reference = holder.get("modelRef") or {}
        name = reference.get("name")
        if isinstance(name, str) and name:
            yield ModelKey(reference.get("namespace") or namespace, name)
