"""The routing table: which models, adapters and pods there are. Immutable; a change makes a new table.

What each pod holds changes by the second and is kept beside it, in `fleet`.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from motet_api.identity import AdapterId, PodName, adapter_id


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
    """A ModelDeployment, as far as the gateway cares: its name and the bounds of its queue."""

    key: ObjectKey
    max_requests: int
    max_wait_seconds: float
    created: int = 0
    """Unix seconds, for `/v1/models`."""


@dataclass(frozen=True, slots=True)
class Share:
    """A version and its weight in the split."""

    version: str
    weight: int


class Source(NamedTuple):
    """Where a version's weights come from: what makes it this version and no other of the same name."""

    uri: str
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoraAdapter: the versions that exist, and the split in effect among them."""

    key: ObjectKey
    model: ObjectKey
    versions: tuple[str, ...]
    traffic: tuple[Share, ...]
    sources: Mapping[str, Source] = field(default_factory=dict)
    """By version; empty where it is not known (a table from a file): pods are then believed by the version's name."""
    created: int = 0

    def runtime_id(self, version: str) -> AdapterId:
        """What pods call this version."""
        return adapter_id(self.key.name, version)


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of a model. `address` is `host:port` of its serving port; `ready` is what Kubernetes says."""

    key: PodKey
    model: ObjectKey
    address: str
    ready: bool


@dataclass(frozen=True, slots=True)
class Table:
    """Everything that exists, indexed by how requests name it. Build it with `build_table`."""

    models: Mapping[ObjectKey, Model] = field(default_factory=dict)
    adapters: Mapping[ObjectKey, Adapter] = field(default_factory=dict)
    pods: Mapping[ObjectKey, tuple[Pod, ...]] = field(default_factory=dict)
    models_by_name: Mapping[str, tuple[Model, ...]] = field(default_factory=dict)
    adapters_by_name: Mapping[str, tuple[Adapter, ...]] = field(default_factory=dict)

    def sources_of(self, model: ObjectKey) -> dict[AdapterId, Source]:
        """The source of each version that the pods of a model should hold."""
        return {
            adapter.runtime_id(version): source
            for adapter in self.adapters.values()
            if adapter.model == model
            for version, source in adapter.sources.items()
        }

    def all_pods(self) -> list[Pod]:
        """The pods of every model."""
        return [pod for pods in self.pods.values() for pod in pods]

    def public_name(self, key: ObjectKey) -> str:
        """The shortest name by which a request reaches this model or adapter: bare where no other object has it."""
        same = len(self.models_by_name.get(key.name, ())) + len(self.adapters_by_name.get(key.name, ()))
        return key.name if same == 1 else str(key)


def build_table(models: Iterable[Model], adapters: Iterable[Adapter], pods: Iterable[Pod]) -> Table:
    """Index what a source has read. Pods of a model that does not exist (any more) are left out."""
    by_key = {model.key: model for model in models}
    adapters_by_key = {adapter.key: adapter for adapter in adapters}
    pods_by_model: defaultdict[ObjectKey, list[Pod]] = defaultdict(list)
    for pod in pods:
        if pod.model in by_key:
            pods_by_model[pod.model].append(pod)
    models_by_name: defaultdict[str, list[Model]] = defaultdict(list)
    for model in sorted(by_key.values(), key=lambda model: model.key):
        models_by_name[model.key.name].append(model)
    adapters_by_name: defaultdict[str, list[Adapter]] = defaultdict(list)
    for adapter in sorted(adapters_by_key.values(), key=lambda adapter: adapter.key):
        adapters_by_name[adapter.key.name].append(adapter)
    return Table(
        models=by_key,
        adapters=adapters_by_key,
        pods={key: tuple(sorted(found, key=lambda pod: pod.key)) for key, found in pods_by_model.items()},
        models_by_name={name: tuple(found) for name, found in models_by_name.items()},
        adapters_by_name={name: tuple(found) for name, found in adapters_by_name.items()},
    )
