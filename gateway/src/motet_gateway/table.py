"""The routing table: which models, adapters and pods there are. Immutable; a change makes a new table.

What each pod holds changes by the second and is kept beside it, in `fleet`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from motet_api.identity import AdapterId, PodName, runtime_id
from motet_api.loraadapter import Residency
from motet_api.modeldeployment import EngineType


class ObjectKey(NamedTuple):
    """Namespace and name of an object."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class PodKey(NamedTuple):
    """Namespace and name of a pod."""

    namespace: str
    name: PodName


@dataclass(frozen=True, slots=True)
class Model:
    """A ModelDeployment, as far as the gateway cares: its name, its engine and the bounds of its queue."""

    key: ObjectKey
    max_requests: int
    max_wait_seconds: float
    engine: EngineType = EngineType.MOTET
    created: int = 0
    """Unix seconds, for `/v1/models`."""


@dataclass(frozen=True, slots=True)
class Share:
    """A version and its weight in the split."""

    version: str
    weight: int


@dataclass(frozen=True, slots=True)
class Mirror:
    """A version that sees a copy of so many percent of the requests that the split decides over."""

    version: str
    percent: int


class Source(NamedTuple):
    """Where a version's weights come from: what makes it this version and no other of the same name."""

    uri: str
    digest: str | None = None

    def is_met_by(self, found: "Source | None") -> bool:
        """Whether weights from `found` are those meant here; an unknown digest is met by every digest."""
        return found is not None and self.uri == found.uri and self.digest in {None, found.digest}


class Expected(NamedTuple):
    """What the pods of a model should hold under one id: where it is from (None: not known), and how firmly.

    `in_effect`: the split leads there, so the operator has seen the pods hold it.
    """

    source: Source | None
    residency: Residency
    in_effect: bool = False

    def is_met_by(self, found: Source | None) -> bool:
        """Whether what a pod has under the id is what is meant."""
        return self.source is None or self.source.is_met_by(found)


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoraAdapter: the versions that are served, and the split in effect among them."""

    key: ObjectKey
    model: ObjectKey
    versions: tuple[str, ...]
    traffic: tuple[Share, ...]
    sources: Mapping[str, Source] = field(default_factory=dict)
    """By version; empty where it is not known (a table from a file): pods are then believed by the version's name."""
    models: Mapping[str, ObjectKey] = field(default_factory=dict)
    """By version, for those that are on another model than `model`."""
    mirror: tuple[Mirror, ...] = ()
    residency: Residency = Residency.REQUIRED
    created: int = 0
    served: tuple[str, ...] | None = None
    """The versions that its model has taken: with a share of the split, or on a pod. None: all (a table of a file)."""

    def model_of(self, version: str) -> ObjectKey:
        """The model whose pods serve this version."""
        return self.models.get(version, self.model)

    def runtime_id(self, version: str) -> AdapterId:
        """What pods call this version."""
        return runtime_id(self.key.namespace, self.model_of(version).namespace, self.key.name, version)

    def name_at(self, version: str) -> str:
        """What pods call the adapter of this version: its name, behind its namespace if they are in another."""
        return self.runtime_id(version).rpartition("@")[0]

    def expected(self, version: str) -> Expected:
        """What the pods of the version's model should hold for it."""
        in_effect = any(share.version == version and share.weight for share in self.traffic)
        return Expected(self.sources.get(version), self.residency, in_effect)


Named = TypeVar("Named", bound=Model | Adapter)
"""What requests name."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of a model. `address` is `host:port` of its serving port; `ready` is what Kubernetes says.

    `reports_at` is `host:port` where it says what it holds, if that is elsewhere: at the agent beside another engine.
    """

    key: PodKey
    model: ObjectKey
    address: str
    ready: bool
    reports_at: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Everything that exists, indexed by how requests name it. Built by a `TableBuilder`."""

    models: Mapping[ObjectKey, Model] = field(default_factory=dict)
    adapters: Mapping[ObjectKey, Adapter] = field(default_factory=dict)
    pods: Mapping[ObjectKey, tuple[Pod, ...]] = field(default_factory=dict)
    models_by_name: Mapping[str, tuple[Model, ...]] = field(default_factory=dict)
    adapters_by_name: Mapping[str, tuple[Adapter, ...]] = field(default_factory=dict)
    expected: Mapping[ObjectKey, Mapping[AdapterId, Expected]] = field(default_factory=dict)
    """By model: what its pods should hold. The same mapping from table to table while nothing in it changes."""
    default_namespace: str = ""
    """Whose objects a bare name means before those of others; empty for nobody's."""

    def all_pods(self) -> list[Pod]:
        """The pods of every model."""
        return [pod for pods in self.pods.values() for pod in pods]

    def meant(self, found: Sequence[Named]) -> list[Named]:
        """Which of the objects of one name the bare name means; several if it is ambiguous.

        Anybody who may write adapters somewhere can take a name. So one that no model has taken does not stand in the
        way of others, and then the installation's own namespace is first.
        """
        counted = [one for one in found if isinstance(one, Model) or self._is_served(one)] or list(found)
        own = [one for one in counted if one.key.namespace == self.default_namespace]
        return own if len(own) == 1 else counted

    def public_name(self, named: Model | Adapter) -> str:
        """The shortest name by which a request reaches this model or adapter: bare where that means no other object."""
        name = named.key.name
        same: list[Model | Adapter] = [*self.models_by_name.get(name, ()), *self.adapters_by_name.get(name, ())]
        return name if self.meant(same) == [named] else str(named.key)

    def _is_served(self, adapter: Adapter) -> bool:
        served = adapter.versions if adapter.served is None else adapter.served
        return any(adapter.model_of(version) in self.models for version in served)
