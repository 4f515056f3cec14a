"""Makes routing tables out of changes, at the cost of the change and not of everything there is.

Invariant: a table that was given away is never touched again. Its large indexes are copied when a change makes the next
table; what is in them (objects, what the pods of one model should hold) is shared between tables while it is the same.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Protocol, TypeVar

from motet_api.identity import AdapterId
from motet_gateway.table import Adapter, Expected, Model, ObjectKey, Pod, Table


class _Named(Protocol):
    @property
    def key(self) -> ObjectKey: ...


Named = TypeVar("Named", bound=_Named)


class TableBuilder:
    """What exists now, and the table that it makes."""

    def __init__(self, default_namespace: str = "") -> None:
        self._default_namespace = default_namespace
        self._models: dict[ObjectKey, Model] = {}
        self._adapters: dict[ObjectKey, Adapter] = {}
        self._models_by_name: dict[str, tuple[Model, ...]] = {}
        self._adapters_by_name: dict[str, tuple[Adapter, ...]] = {}
        self._expected: dict[ObjectKey, dict[AdapterId, Expected]] = {}
        self._own: set[ObjectKey] = set()
        """Models whose entry in `_expected` is in no table yet, and so may be changed in place."""
        self._pods: list[Pod] = []
        self._pods_by_model: Mapping[ObjectKey, tuple[Pod, ...]] | None = None
        self._table: Table | None = None

    def put_model(self, model: Model) -> None:
        """A model was added or has changed."""
        if self._models.get(model.key) != model:
            self._models[model.key] = model
            _put_by_name(self._models_by_name, model)
            self._pods_by_model = self._table = None

    def remove_model(self, key: ObjectKey) -> None:
        """A model is gone; so are its pods, for as long."""
        if self._models.pop(key, None) is not None:
            _remove_by_name(self._models_by_name, key)
            self._pods_by_model = self._table = None

    def put_adapter(self, adapter: Adapter) -> None:
        """An adapter was added or has changed."""
        known = self._adapters.get(adapter.key)
        if known == adapter:
            return
        if known is not None:
            self._forget(known)
        self._adapters[adapter.key] = adapter
        _put_by_name(self._adapters_by_name, adapter)
        for version in adapter.versions:
            self._changeable(adapter.model_of(version))[adapter.runtime_id(version)] = adapter.expected(version)
        self._table = None

    def remove_adapter(self, key: ObjectKey) -> None:
        """An adapter is gone."""
        if (known := self._adapters.pop(key, None)) is not None:
            self._forget(known)
            _remove_by_name(self._adapters_by_name, key)
            self._table = None

    def set_pods(self, pods: Iterable[Pod]) -> None:
        """All the pods there are. Those of a model that does not exist (any more) are left out of the table."""
        self._pods = sorted(pods, key=lambda pod: pod.key)
        self._pods_by_model = self._table = None

    def table(self) -> Table:
        """The table of everything put in so far; the same one while nothing changes."""
        if self._table is None:
            self._own.clear()
            self._table = Table(
                models=dict(self._models),
                adapters=dict(self._adapters),
                pods=self._grouped_pods(),
                models_by_name=dict(self._models_by_name),
                adapters_by_name=dict(self._adapters_by_name),
                expected=dict(self._expected),
                default_namespace=self._default_namespace,
            )
        return self._table

    def _grouped_pods(self) -> Mapping[ObjectKey, tuple[Pod, ...]]:
        if self._pods_by_model is None:
            grouped: defaultdict[ObjectKey, list[Pod]] = defaultdict(list)
            for pod in self._pods:
                if pod.model in self._models:
                    grouped[pod.model].append(pod)
            self._pods_by_model = {model: tuple(pods) for model, pods in grouped.items()}
        return self._pods_by_model

    def _forget(self, adapter: Adapter) -> None:
        for version in adapter.versions:
            model = adapter.model_of(version)
            expected = self._changeable(model)
            expected.pop(adapter.runtime_id(version), None)
            if not expected:
                del self._expected[model]
                self._own.discard(model)

    def _changeable(self, model: ObjectKey) -> dict[AdapterId, Expected]:
        if model not in self._own:
            self._own.add(model)
            self._expected[model] = dict(self._expected.get(model, ()))
        return self._expected[model]


def build_table(
    models: Iterable[Model], adapters: Iterable[Adapter], pods: Iterable[Pod], default_namespace: str = ""
) -> Table:
    """The table of what was read in one go."""
    builder = TableBuilder(default_namespace)
    for model in models:
        builder.put_model(model)
    for adapter in adapters:
        builder.put_adapter(adapter)
    builder.set_pods(pods)
    return builder.table()


def _put_by_name(index: dict[str, tuple[Named, ...]], added: Named) -> None:
    others = [other for other in index.get(added.key.name, ()) if other.key != added.key]
    index[added.key.name] = tuple(sorted([*others, added], key=lambda one: one.key))


def _remove_by_name(index: dict[str, tuple[Named, ...]], key: ObjectKey) -> None:
    left = tuple(other for other in index.get(key.name, ()) if other.key != key)
    if left:
        index[key.name] = left
    else:
        index.pop(key.name, None)
