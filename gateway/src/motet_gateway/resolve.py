"""From the name in a request to a model and a version. Pure.

A name that is not served is an error that says what is; the base model never answers in an adapter's place.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from motet_api.errors import ErrorCode
from motet_api.identity import AdapterId, AdapterRef, parse_adapter_ref
from motet_api.loraadapter import Residency
from motet_api.names import BASE_MODEL_ALIAS, MODEL_HEADER
from motet_gateway.errors import RequestRefusedError, UnavailableError
from motet_gateway.fleet import Fleet
from motet_gateway.split import choose_version
from motet_gateway.suggestions import suggest
from motet_gateway.table import Adapter, Model, Named, ObjectKey, Share, Table

NOT_READY_RETRY_SECONDS: Final = 2


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes: a model, and a version of an adapter or (both None) the base.

    `by_split` says that the split chose the version, not the client: it may then be chosen again.
    """

    model: Model
    adapter: Adapter | None = None
    version: str | None = None
    by_split: bool = False

    @property
    def runtime_id(self) -> AdapterId | None:
        """What pods call the version; None for the base."""
        if self.adapter is None or self.version is None:
            return None
        return self.adapter.runtime_id(self.version)

    @property
    def adapter_name(self) -> str:
        """What pods, headers and metrics call the adapter; empty for the base."""
        return "" if self.adapter is None or self.version is None else self.adapter.name_at(self.version)

    @property
    def spills(self) -> bool:
        """Whether one more pod loads the version when those that hold it are full."""
        return self.adapter is not None and self.adapter.residency is Residency.ON_DEMAND


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request says of where it wants to go.

    `user` is the key of the sticky split; a request without a user gets a version at random, by its id.
    """

    name: str
    model_header: str | None
    user: str


def resolve_adapter(asked: Asked, table: Table, fleet: Fleet) -> Route:
    """The route of a LoRAX request: `name` is an adapter's, or means the base when it is empty.

    Raises:
        RequestRefusedError: the name is not served, or could mean several things.
        UnavailableError: the adapter exists but no version of it takes traffic yet.
    """
    scope = _scope(asked, table)
    if asked.name in {"", BASE_MODEL_ALIAS}:
        return Route(scope or _only_model(table))
    ref = _parse(asked.name, table)
    return _route_to(_adapter(ref, scope, table), ref, scope, asked.user, table, fleet)


def resolve_model(asked: Asked, table: Table, fleet: Fleet) -> Route:
    """The route of an OpenAI request: `model` is an adapter's name, or a ModelDeployment's, which means its base.

    Raises: as `resolve_adapter`.
    """
    if asked.name in {"", BASE_MODEL_ALIAS}:
        return resolve_adapter(asked, table, fleet)
    scope = _scope(asked, table)
    ref = _parse(asked.name, table)
    bases = [model for model in table.models_by_name.get(ref.name, ()) if _names_it(ref, model.key)]
    if ref.version is not None:
        bases = []
    if scope is not None:
        bases = [base for base in bases if base.key == scope.key]
    if not bases:
        return _route_to(_adapter(ref, scope, table), ref, scope, asked.user, table, fleet)
    fitting: list[Model | Adapter] = [*bases, *_adapters(ref, scope, table)]
    found = _meant(ref, fitting, table)
    if len(found) > 1:
        adapters = [one for one in found if isinstance(one, Adapter)]
        raise _ambiguous(ref, [one.key for one in found if isinstance(one, Model)], adapters)
    if isinstance(found[0], Adapter):
        return _route_to(found[0], ref, scope, asked.user, table, fleet)
    return Route(found[0])


def _scope(asked: Asked, table: Table) -> Model | None:
    """The model that the header names, if there is one."""
    if not asked.model_header:
        return None
    try:
        ref = parse_adapter_ref(asked.model_header)
    except ValueError:
        ref = AdapterRef(name=asked.model_header)
    found = [model for model in table.models_by_name.get(ref.name, ()) if _names_it(ref, model.key)]
    if not found or ref.version is not None:
        raise RequestRefusedError(
            ErrorCode.MODEL_NOT_FOUND,
            f"the header {MODEL_HEADER} names no ModelDeployment: {asked.model_header!r}"
            f"{suggest(ref.name, table.models_by_name)}",
        )
    meant = _meant(ref, found, table)
    if len(meant) > 1:
        raise _ambiguous(ref, [model.key for model in meant], [])
    return meant[0]


def _only_model(table: Table) -> Model:
    if not table.models:
        raise RequestRefusedError(ErrorCode.MODEL_NOT_FOUND, "no ModelDeployment exists")
    meant = table.meant(list(table.models.values()))
    if len(meant) > 1:
        raise RequestRefusedError(
            ErrorCode.MODEL_AMBIGUOUS,
            f"several ModelDeployments are served: say which in the header {MODEL_HEADER}: {_listed(table.models)}",
        )
    return table.models[meant[0].key]


def _parse(name: str, table: Table) -> AdapterRef:
    try:
        return parse_adapter_ref(name)
    except ValueError as error:
        raise RequestRefusedError(
            ErrorCode.ADAPTER_NOT_FOUND, f"{error}{suggest(name, table.adapters_by_name)}", param="model"
        ) from error


def _meant(ref: AdapterRef, found: Sequence[Named], table: Table) -> list[Named]:
    """Of the objects that a request's name fits, those that it means; a name with its namespace means them all."""
    return list(found) if ref.namespace is not None else table.meant(found)


def _adapters(ref: AdapterRef, scope: Model | None, table: Table) -> list[Adapter]:
    return [
        adapter
        for adapter in table.adapters_by_name.get(ref.name, ())
        if _names_it(ref, adapter.key) and _versions(adapter, scope)
    ]


def _adapter(ref: AdapterRef, scope: Model | None, table: Table) -> Adapter:
    found = _meant(ref, _adapters(ref, scope, table), table)
    if len(found) > 1:
        raise _ambiguous(ref, [], found)
    if not found:
        where = f" of model {scope.key}" if scope else ""
        raise RequestRefusedError(
            ErrorCode.ADAPTER_NOT_FOUND,
            f"no adapter {str(ref)!r}{where} exists{suggest(ref.name, table.adapters_by_name)}",
            param="model",
        )
    return found[0]


def _versions(adapter: Adapter, scope: Model | None) -> list[str]:
    """The versions that the model of the header serves, or all of them."""
    return [version for version in adapter.versions if scope is None or adapter.model_of(version) == scope.key]


def _route_to(adapter: Adapter, ref: AdapterRef, scope: Model | None, user: str, table: Table, fleet: Fleet) -> Route:
    versions = _versions(adapter, scope)
    if ref.version is not None and ref.version not in versions:
        where = f" on model {scope.key}" if scope else ""
        raise RequestRefusedError(
            ErrorCode.VERSION_NOT_FOUND,
            f"adapter {adapter.key} has no version {ref.version!r}{where}; it has {', '.join(versions)}",
            param="model",
        )
    version = ref.version or _split(adapter, versions, user, table, fleet)
    model = table.models.get(adapter.model_of(version))
    if model is None:
        raise RequestRefusedError(
            ErrorCode.MODEL_NOT_FOUND,
            f"adapter {adapter.key} refers to ModelDeployment {adapter.model_of(version)}, which is gone",
        )
    return Route(model, adapter, version, by_split=ref.version is None)


def _split(adapter: Adapter, versions: list[str], user: str, table: Table, fleet: Fleet) -> str:
    shares = [share for share in adapter.traffic if share.weight > 0 and share.version in versions]
    if not shares:
        raise UnavailableError(
            ErrorCode.ADAPTER_NOT_READY,
            f"no version of adapter {adapter.key} takes traffic yet; it has {', '.join(versions)}",
            NOT_READY_RETRY_SECONDS,
        )
    there = [share for share in shares if adapter.model_of(share.version) in table.models] or shares
    return choose_version(str(adapter.key), user, _served(adapter, there, fleet) or there)


def _served(adapter: Adapter, shares: list[Share], fleet: Fleet) -> list[Share]:
    # The operator shifts traffic only to versions that are resident, so a version is missing here only when the pods
    # that held it were lost. Until it is back, its users get another version that has a share rather than an error.
    return [
        share for share in shares if fleet.serving(adapter.model_of(share.version), adapter.runtime_id(share.version))
    ]


def _names_it(ref: AdapterRef, key: ObjectKey) -> bool:
    return ref.name == key.name and ref.namespace in {None, key.namespace}


def _ambiguous(ref: AdapterRef, bases: list[ObjectKey], adapters: list[Adapter]) -> RequestRefusedError:
    if bases and adapters:
        version = f"{adapters[0].key}@{adapters[0].versions[0]}"
        remedy = (
            f"it is a model ({_listed(bases)}) and an adapter ({_listed(a.key for a in adapters)}). For the adapter "
            f"write {version}; for the base write {BASE_MODEL_ALIAS} and name the model in the header {MODEL_HEADER}"
        )
    else:
        remedy = f"write one of {_listed([*bases, *(adapter.key for adapter in adapters)])}"
    return RequestRefusedError(ErrorCode.MODEL_AMBIGUOUS, f"{str(ref)!r} is ambiguous: {remedy}", param="model")


def _listed(keys: Iterable[ObjectKey]) -> str:
    return ", ".join(sorted(str(key) for key in keys))
