"""What each namespace uses of adapters and bytes, and which adapters and versions are beyond what policy gives it.

Oldest first: an adapter keeps its place whoever comes later. Bytes are given version by version, to all that have a
share of the split before any that has none, so that a version too much takes nothing from those that serve. A version
that is refused uses no bytes. One of unknown size uses none yet, and is not fetched before its source has said how many
it has (`ArtifactRequest.max_bytes`). Kept up to date by the index: asking costs nothing where nothing has changed.
"""

from bisect import bisect_left, insort
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from motet_api.policy import NamespacePolicy
from motet_operator.views import Adapter


@dataclass(frozen=True, slots=True)
class Beyond:
    """Why an adapter is refused as a whole, or which of its versions are and why."""

    whole: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    def of(self, version: str) -> str:
        """Why a version is refused; empty if it is not."""
        return self.whole or self.versions.get(version, "")


_NOTHING: Final[Mapping[str, Beyond]] = MappingProxyType({})
_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)

_Sizes = tuple[tuple[str, int, bool], ...]
"""Of each version in spec its name, its bytes as far as they are known, and whether it has a share of the split."""
_Place = tuple[datetime, str]
"""When an adapter was made, and its name: the order in which quota is given."""


@dataclass(slots=True)
class _Namespace:
    order: list[_Place] = field(default_factory=list)
    places: dict[str, _Place] = field(default_factory=dict)
    sizes: dict[str, _Sizes] = field(default_factory=dict)
    answer: tuple[NamespacePolicy, Mapping[str, Beyond]] | None = None


class Usage:
    """Adapters and their bytes, by namespace."""

    def __init__(self) -> None:
        self._namespaces: dict[str, _Namespace] = {}

    def put(self, adapter: Adapter) -> None:
        """An adapter is there, or has changed."""
        namespace, name = adapter.name
        space = self._namespaces.setdefault(namespace, _Namespace())
        place, sizes = (adapter.meta.creation_timestamp or _LONG_AGO, name), _sizes(adapter)
        if space.places.get(name) == place and space.sizes[name] == sizes:
            return
        self.drop(namespace, name)
        space = self._namespaces.setdefault(namespace, _Namespace())
        insort(space.order, place)
        space.places[name], space.sizes[name] = place, sizes

    def drop(self, namespace: str, name: str) -> None:
        """An adapter is gone."""
        space = self._namespaces.get(namespace)
        place = space.places.pop(name, None) if space is not None else None
        if space is None or place is None:
            return
        del space.order[bisect_left(space.order, place)]
        del space.sizes[name]
        space.answer = None
        if not space.order:
            del self._namespaces[namespace]

    def beyond(self, namespace: str, policy: NamespacePolicy) -> Mapping[str, Beyond]:
        """The adapters of a namespace that are beyond its quota, or have versions that are, and why."""
        space = self._namespaces.get(namespace)
        if space is None or (policy.max_adapters is None and policy.max_bytes is None):
            return _NOTHING
        if space.answer is None or space.answer[0] is not policy:
            space.answer = policy, _beyond(space, policy)
        return space.answer[1]

    def refused(self, namespace: str) -> Mapping[str, Beyond]:
        """The answer of last time: who waits for others to go."""
        space = self._namespaces.get(namespace)
        return space.answer[1] if space is not None and space.answer is not None else _NOTHING


def _beyond(space: _Namespace, policy: NamespacePolicy) -> dict[str, Beyond]:
    names = [name for _, name in space.order]
    taken = names if policy.max_adapters is None else names[: policy.max_adapters]
    too_many = (
        f"the namespace may have {policy.max_adapters} adapters, and older ones take all of that: remove one, "
        "or ask the installation's administrator for more (maxAdapters)"
    )
    found = {name: Beyond(whole=too_many) for name in names[len(taken) :]}
    if policy.max_bytes is not None:
        sizes = [(name, *one) for name in taken for one in space.sizes[name]]
        refused: dict[str, dict[str, str]] = {}
        left = policy.max_bytes
        for name, version, size, _ in sorted(sizes, key=lambda entry: not entry[-1]):
            if size <= left:
                left -= size
            else:
                refused.setdefault(name, {})[version] = _too_large(policy.max_bytes, left, size)
        found |= {name: Beyond(versions=versions) for name, versions in refused.items()}
    return found


def _too_large(most: int, left: int, size: int) -> str:
    return (
        f"the namespace may have {most} bytes of adapters; what comes before it leaves {left}, and it has {size}: "
        "remove a version, or ask the installation's administrator for more (maxBytes)"
    )


def _sizes(adapter: Adapter) -> _Sizes:
    if adapter.spec is None or adapter.status is None:
        return ()
    known = {version.name: version.size_bytes or 0 for version in adapter.status.versions}
    serving = {target.version for target in adapter.status.traffic if target.weight > 0}
    names = [version.name for version in adapter.spec.versions]
    return tuple((name, known.get(name, 0), name in serving) for name in names)
