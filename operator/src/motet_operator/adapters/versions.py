"""The versions of an adapter that somebody still uses: those in spec, and those that have left it. Pure.

A version that has left spec stays as long as status has it, with the source and the ModelDeployment that were recorded
there: what pods are told never depends on what this process remembers. So does one whose name spec has given to another
source meanwhile: the recorded one keeps its name until it is gone, and the other one waits.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from motet_api.identity import AdapterId, runtime_id
from motet_api.loraadapter import LoraAdapterSpec, ModelRef, VersionStatus
from motet_api.objects import AdapterSource, ConditionStatus
from motet_api.reasons import ConditionType
from motet_operator.conditions import find
from motet_operator.keys import ModelKey
from motet_operator.views import Adapter


@dataclass(frozen=True, slots=True)
class Version:
    """One version. `model` is the ModelDeployment that serves it, `recorded` what status says of it."""

    name: str
    source: AdapterSource
    model_ref: ModelRef | None
    model: ModelKey
    in_spec: bool
    recorded: VersionStatus | None

    @property
    def digest(self) -> str | None:
        """What the bytes must be: as spec says, or as they were found to be once."""
        return self.source.digest or (self.recorded.digest if self.recorded else None)

    @property
    def proven(self) -> bool:
        """Whether status says that the bytes of the recorded digest were there once, and found sound."""
        known = self.recorded is not None and self.recorded.digest is not None
        return known and self.was(ConditionType.RESOLVED) and self.was(ConditionType.VERIFIED)

    def was(self, kind: ConditionType) -> bool:
        """Whether status says that a condition holds of it."""
        found = find(self.recorded.conditions, kind) if self.recorded is not None else None
        return found is not None and found.status is ConditionStatus.TRUE


def versions_of(adapter: Adapter) -> tuple[Version, ...]:
    """All versions of an adapter, those in spec first; where spec cannot be understood, those that status has."""
    spec = adapter.spec
    return tuple(_versions(adapter, spec) if spec is not None else _served(adapter))


def clashes(adapter: Adapter) -> dict[str, str]:
    """What to do about the versions of spec whose name status still has for something else, by name."""
    recorded = {entry.name: entry for entry in adapter.status.versions} if adapter.status else {}
    return {
        entry.name: (
            f"spec.versions: version {entry.name} was {_text(old.source, old.model_ref)} and cannot become "
            f"{_text(entry.source, entry.model_ref)}; choose another name"
        )
        for entry in (adapter.spec.versions if adapter.spec is not None else ())
        if (old := recorded.get(entry.name)) is not None and old.source is not None and not old.is_about(entry)
    }


def home_of(adapter: Adapter) -> ModelKey | None:
    """The ModelDeployment whose pass writes the adapter's status; None where spec does not say it."""
    reference = adapter.spec.model_ref if adapter.spec is not None else adapter.reference
    return model_key(reference, adapter.meta.namespace) if reference is not None else None


def model_key(reference: ModelRef, namespace: str) -> ModelKey:
    """What a reference in an object of this namespace means."""
    return ModelKey(reference.namespace or namespace, reference.name)


def id_of(adapter: Adapter, version: Version) -> AdapterId:
    """What the pods call a version."""
    return runtime_id(adapter.meta.namespace, version.model.namespace, adapter.meta.name, version.name)


def _versions(adapter: Adapter, spec: LoraAdapterSpec) -> Iterator[Version]:
    namespace = adapter.meta.namespace
    recorded = {entry.name: entry for entry in adapter.status.versions} if adapter.status else {}
    for entry in spec.versions:
        if entry.name in recorded and not recorded[entry.name].is_about(entry):
            continue
        model = model_key(spec.model_of(entry), namespace)
        yield Version(entry.name, entry.source, entry.model_ref, model, True, recorded.pop(entry.name, None))
    for left in recorded.values():
        if left.source is not None:
            model = model_key(left.model_ref or spec.model_ref, namespace)
            yield Version(left.name, left.source, left.model_ref, model, False, left)


def _served(adapter: Adapter) -> Iterator[Version]:
    """The versions of an adapter whose spec cannot be understood: what is served goes on."""
    for left in adapter.status.versions if adapter.status is not None else ():
        reference = left.model_ref or adapter.reference
        if left.source is not None and reference is not None:
            model = model_key(reference, adapter.meta.namespace)
            yield Version(left.name, left.source, left.model_ref, model, True, left)


def _text(source: AdapterSource, reference: ModelRef | None) -> str:
    parts = {"revision": source.revision, "digest": source.digest, "modelRef": reference and reference.name}
    return source.uri + "".join(f" ({name} {value})" for name, value in parts.items() if value)
