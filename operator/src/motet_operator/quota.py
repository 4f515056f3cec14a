"""What each namespace uses of adapters and bytes, and which adapters are beyond what policy gives it.

Oldest first: an adapter keeps its place whoever comes later. One that is refused uses nothing. Kept up to date by the
index, so that asking costs nothing where nothing has changed.
"""

from bisect import bisect_left, insort
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from motet_api.policy import NamespacePolicy
from motet_operator.views import Adapter

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)

_Place = tuple[datetime, str]
"""When an adapter was made, and its name: the order in which quota is given."""


@dataclass(slots=True)
class _Namespace:
    order: list[_Place] = field(default_factory=list)
    places: dict[str, _Place] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    answer: tuple[NamespacePolicy, Mapping[str, str]] | None = None


class Usage:
    """Adapters and their bytes, by namespace."""

    def __init__(self) -> None:
        self._namespaces: dict[str, _Namespace] = {}

    def put(self, adapter: Adapter) -> None:
        """An adapter is there, or has changed."""
        namespace, name = adapter.name
        space = self._namespaces.setdefault(namespace, _Namespace())
        place, size = (adapter.meta.creation_timestamp or _LONG_AGO, name), _size(adapter)
        if space.places.get(name) == place and space.sizes[name] == size:
            return
        self.drop(namespace, name)
        space = self._namespaces.setdefault(namespace, _Namespace())
        insort(space.order, place)
        space.places[name], space.sizes[name] = place, size

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

    def beyond(self, namespace: str, policy: NamespacePolicy) -> Mapping[str, str]:
        """The adapters of a namespace that are beyond its quota, and why."""
        space = self._namespaces.get(namespace)
        if space is None or (policy.max_adapters is None and policy.max_bytes is None):
            return _NOTHING
        if space.answer is None or space.answer[0] is not policy:
            space.answer = policy, _beyond(space, policy)
        return space.answer[1]

    def refused(self, namespace: str) -> Mapping[str, str]:
        """The answer of last time: who waits for others to go."""
        space = self._namespaces.get(namespace)
        return space.answer[1] if space is not None and space.answer is not None else _NOTHING


def _beyond(space: _Namespace, policy: NamespacePolicy) -> dict[str, str]:
    found: dict[str, str] = {}
    count = used = 0
    for _, name in space.order:
        size = space.sizes[name]
        if policy.max_adapters is not None and count >= policy.max_adapters:
            found[name] = (
                f"the namespace may have {policy.max_adapters} adapters, and older ones take all of that: remove one, "
                "or ask the installation's administrator for more (maxAdapters)"
            )
        elif policy.max_bytes is not None and used + size > policy.max_bytes:
            found[name] = (
                f"the namespace may have {policy.max_bytes} bytes of adapters; older ones leave "
                f"{policy.max_bytes - used}, and this one has {size}: remove one, or ask the installation's "
                "administrator for more (maxBytes)"
            )
        else:
            count, used = count + 1, used + size
    return found


def _size(adapter: Adapter) -> int:
    """Bytes of the versions in spec, as far as they are known."""
    if adapter.spec is None or adapter.status is None:
        return 0
    names = {version.name for version in adapter.spec.versions}
    return sum(version.size_bytes or 0 for version in adapter.status.versions if version.name in names)
