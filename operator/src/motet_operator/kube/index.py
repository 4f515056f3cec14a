"""What the watches have told so far, by ModelDeployment: reads that cost the API server nothing.

Invariant: an entry is an object that the API server once had, and never gives way to an older state of itself. It may
be behind the cluster; every decision is made again when it catches up, so being behind costs time and nothing else.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from motet_operator.adapters.quota import Usage
from motet_operator.adapters.tenancy import selects_namespaces
from motet_operator.keys import Kind, ModelKey, ObjectName, RawObject, models_of
from motet_operator.views import Adapter, Model, NamespaceLabels, View, read


@dataclass(frozen=True, slots=True)
class Entry:
    """An object as it was at a resource version, and the ModelDeployments that it belongs to."""

    keys: tuple[ModelKey, ...]
    uid: str
    version: int
    view: View | None


class Index:
    """Objects by kind and name, and by the ModelDeployments they belong to."""

    def __init__(self) -> None:
        self._entries: dict[Kind, dict[ObjectName, Entry]] = {kind: {} for kind in Kind}
        self._by_model: dict[ModelKey, dict[Kind, dict[ObjectName, Entry]]] = {}
        self._visitors: dict[ModelKey, Counter[ModelKey]] = {}
        self._labels: Mapping[str, Mapping[str, str]] = {}
        """Never changed but replaced: snapshots have it."""
        self.usage = Usage()

    def put(self, kind: Kind, raw: RawObject) -> set[ModelKey]:
        """Take in an object; returns the keys that should look again: those it belongs to, and belonged to."""
        name, metadata = _name(raw), raw["metadata"]
        old = self._entries[kind].get(name)
        version = int(metadata["resourceVersion"])
        if old is not None and old.uid == metadata["uid"] and old.version >= version:
            return set()
        if kind is Kind.NAMESPACE:
            return self._put_namespace(name, Entry((), metadata["uid"], version, read(kind, raw)))
        touched = self._drop(kind, name)
        keys = models_of(kind, raw)
        if keys:
            entry = Entry(keys, metadata["uid"], version, read(kind, raw))
            self._entries[kind][name] = entry
            self._file(kind, name, entry)
            touched |= self._concerned(entry)
        return touched

    def _file(self, kind: Kind, name: ObjectName, entry: Entry) -> None:
        for key in entry.keys:
            self._by_model.setdefault(key, {}).setdefault(kind, {})[name] = entry
        if kind is Kind.LORA_ADAPTER:
            self.usage.put(cast(Adapter, entry.view))
            home, *others = entry.keys
            for key in others:
                self._visitors.setdefault(key, Counter())[home] += 1

    def _put_namespace(self, name: ObjectName, entry: Entry) -> set[ModelKey]:
        self._entries[Kind.NAMESPACE][name] = entry
        labels = entry.view.labels if isinstance(entry.view, NamespaceLabels) else {}
        if self._labels.get(name[1]) == labels:
            return set()
        self._labels = {**self._labels, name[1]: labels}
        return self._selecting()

    def _concerned(self, entry: Entry) -> set[ModelKey]:
        """Who should look again: the entry's own keys, and the homes of adapters that have versions on them."""
        return self._with_homes(entry.keys)

    def _with_homes(self, keys: Iterable[ModelKey]) -> set[ModelKey]:
        there = set(keys)
        return there.union(*(self._visitors.get(key, ()) for key in there))

    def _selecting(self) -> set[ModelKey]:
        """Models that take adapters by the labels of their namespace, and the homes of those adapters."""
        models = self._entries[Kind.MODEL_DEPLOYMENT].values()
        return self._with_homes(
            entry.keys[0] for entry in models if entry.view is not None and selects_namespaces(cast(Model, entry.view))
        )

    def remove(self, kind: Kind, raw: RawObject) -> set[ModelKey]:
        """Take in that an object is gone; returns the keys that should look again."""
        old = self._entries[kind].get(_name(raw))
        if old is not None and old.uid != raw["metadata"]["uid"]:
            return set()
        return self._gone(kind, _name(raw))

    def snapshot(self, kind: Kind) -> dict[ObjectName, Entry]:
        """All of a kind as of now, for `forget_vanished`."""
        return dict(self._entries[kind])

    def forget_vanished(
        self, kind: Kind, before: dict[ObjectName, Entry], listed: Iterable[ObjectName]
    ) -> set[ModelKey]:
        """Drop what was known `before` a complete listing, has not changed since, and is not in it.

        A watch that lost its place begins anew and says nothing of what was deleted in between.
        """
        there = set(listed)
        touched: set[ModelKey] = set()
        for name, entry in before.items():
            if name not in there and self._entries[kind].get(name) is entry:
                touched |= self._gone(kind, name)
        return touched

    def models(self) -> Iterator[ModelKey]:
        """Every key that anything belongs to."""
        yield from list(self._by_model)

    def of_model(self, key: ModelKey, kind: Kind) -> dict[str, View]:
        """The views of a kind that belong to a ModelDeployment and are in its namespace, by name."""
        found = self._by_model.get(key, {}).get(kind, {})
        return {
            name: entry.view
            for (namespace, name), entry in sorted(found.items())
            if entry.view is not None and namespace == key.namespace
        }

    def adapters(self, key: ModelKey) -> tuple[Adapter, ...]:
        """The LoraAdapters, of any namespace, with a version that belongs to a ModelDeployment."""
        found = self._by_model.get(key, {}).get(Kind.LORA_ADAPTER, {})
        return tuple(cast(Adapter, entry.view) for _, entry in sorted(found.items()) if entry.view is not None)

    def views(self, kind: Kind) -> list[View]:
        """All views of a kind."""
        return [entry.view for entry in list(self._entries[kind].values()) if entry.view is not None]

    def namespace_labels(self) -> Mapping[str, Mapping[str, str]]:
        """The labels of every namespace that is seen."""
        return self._labels

    def _gone(self, kind: Kind, name: ObjectName) -> set[ModelKey]:
        """An object is there no more; who waited for its share of the namespace's quota looks again as well."""
        if kind is Kind.NAMESPACE:
            self._entries[kind].pop(name, None)
            if name[1] not in self._labels:
                return set()
            self._labels = {other: labels for other, labels in self._labels.items() if other != name[1]}
            return self._selecting()
        touched = self._drop(kind, name)
        if kind is Kind.LORA_ADAPTER:
            others = self._entries[kind]
            touched.update(
                others[name[0], waiting].keys[0]
                for waiting in self.usage.refused(name[0])
                if (name[0], waiting) in others
            )
            self.usage.drop(*name)
        return touched

    def _drop(self, kind: Kind, name: ObjectName) -> set[ModelKey]:
        entry = self._entries[kind].pop(name, None)
        if entry is None:
            return set()
        concerned = self._concerned(entry)
        for key in entry.keys:
            kinds = self._by_model[key]
            del kinds[kind][name]
            if not any(kinds.values()):
                del self._by_model[key]
        if kind is Kind.LORA_ADAPTER:
            home, *others = entry.keys
            for key in others:
                self._visitors[key][home] -= 1
                self._visitors[key] += Counter()
        return concerned


def _name(raw: RawObject) -> ObjectName:
    return raw["metadata"].get("namespace", ""), raw["metadata"]["name"]
