"""Observe: everything about one ModelDeployment into one frozen snapshot. The only step that reads.

Objects come from the index. Only a child that should exist and is not in the index is asked for by name: it may be
there without our label, and then it must not be taken over. Pods are asked all at once.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol, TypeVar

from motet_api.policy import Policy
from motet_api.store import ArtifactsAnswer, ArtifactsQuery
from motet_api.wire import AdapterOutcome, AdaptersReport
from motet_operator.adapters.home import at_home, span_of
from motet_operator.adapters.quota import Beyond
from motet_operator.adapters.versions import home_of, versions_of
from motet_operator.adapters.wishes import base_ips, wishes
from motet_operator.clients.artifacts import Answers, ArtifactBook
from motet_operator.errors import NotFoundError, SilentPodError, SilentStoreError
from motet_operator.installation import Installation
from motet_operator.keys import CHILDREN, Kind, ModelKey, ObjectName, RawObject, child_name
from motet_operator.kube.index import Index
from motet_operator.models.base_source import base_request
from motet_operator.models.resources import wanted_children
from motet_operator.passes.applied import AppliedMemory
from motet_operator.snapshot import BaseAnswer, PodState, Site, Snapshot, Tenants
from motet_operator.views import Adapter, ChildView, Declared, Model, Pod, read

ViewT = TypeVar("ViewT")


class ObjectReader(Protocol):
    """Reads one object."""

    async def get(self, kind: Kind, namespace: str, name: str) -> RawObject:
        """The object. Raises: NotFoundError, and others that end the pass."""
        ...


class PodAsker(Protocol):
    """Asks a pod what it holds."""

    async def report(self, ip: str) -> AdaptersReport:
        """What it holds. Raises: SilentPodError."""
        ...


class StoreAsker(Protocol):
    """Asks the adapter store what it knows."""

    async def query(self, query: ArtifactsQuery) -> ArtifactsAnswer:
        """One report for each artifact. Raises: SilentStoreError."""
        ...


class GatewayAsker(Protocol):
    """Asks the gateways."""

    async def ask(self, adapter: ObjectName, seconds: float) -> Sequence[AdapterOutcome | None]:
        """What each gateway has seen of an adapter in so many seconds; None for one that does not answer."""
        ...


@dataclass(frozen=True, slots=True)
class Witnesses:
    """Who is asked beside the pods, and by whose rules; what an installation lacks is None.

    `sees_namespaces` says whether Namespace objects are in the index.
    """

    artifacts: ArtifactBook | None = None
    gateways: GatewayAsker | None = None
    policy: Callable[[], Policy] = Policy
    sees_namespaces: bool = False
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


class Observer:
    """Makes snapshots."""

    def __init__(
        self,
        index: Index,
        reader: ObjectReader,
        asker: PodAsker,
        applied: AppliedMemory,
        installation: Installation,
        store: StoreAsker | None = None,
        witnesses: Witnesses | None = None,
    ) -> None:
        self._index = index
        self._reader = reader
        self._asker = asker
        self._applied = applied
        self._installation = installation
        self._store = store
        self._witnesses = witnesses or Witnesses()

    async def observe(self, key: ModelKey) -> Snapshot:
        """The snapshot of one key. Raises: UnavailableError, RefusedError."""
        model = self._model(key)
        adapters = self._index.adapters(key)
        elsewhere = sorted(
            {
                version.model
                for adapter in adapters
                if home_of(adapter) == key
                for version in versions_of(adapter)
                if version.model != key
            }
        )
        pods, children, base, sites = await asyncio.gather(
            self._pods(key),
            self._children(key, model),
            self._base(model),
            asyncio.gather(*(self._site(other) for other in elsewhere)),
        )
        if model is None:
            self._applied.forget(key)
        snapshot = Snapshot(
            key=key,
            model=model,
            adapters=adapters,
            children=children,
            pods=pods,
            base=base,
            applied=self._applied.of(key),
            foreign={site.key: site for site in sites},
            tenants=self._tenants([*adapters, *(adapter for site in sites for adapter in site.adapters)]),
        )
        artifacts, outcomes = await asyncio.gather(self._artifacts(snapshot), self._outcomes(snapshot))
        return replace(snapshot, artifacts=artifacts, outcomes=outcomes)

    def _tenants(self, adapters: Iterable[Adapter]) -> Tenants:
        policy = self._witnesses.policy()
        beyond: dict[ObjectName, Beyond] = {}
        for namespace, name in {adapter.name for adapter in adapters}:
            found = self._index.usage.beyond(namespace, policy.of(namespace)).get(name)
            if found is not None:
                beyond[namespace, name] = found
        labels = self._index.namespace_labels() if self._witnesses.sees_namespaces else None
        return Tenants(labels, beyond, policy)

    async def _artifacts(self, snapshot: Snapshot) -> Answers | None:
        book = self._witnesses.artifacts
        return await book.ask(snapshot.key, wishes(snapshot), base_ips(snapshot.sites)) if book is not None else None

    async def _outcomes(self, snapshot: Snapshot) -> dict[ObjectName, Sequence[AdapterOutcome | None]] | None:
        """Only of adapters on which something hangs: a rollout that is judged, a version that retires."""
        gateways, now = self._witnesses.gateways, self._witnesses.now()
        if gateways is None:
            return None
        spans = {
            adapter.name: seconds for adapter in at_home(snapshot) if (seconds := span_of(adapter, now)) is not None
        }
        answers = await asyncio.gather(*(gateways.ask(name, seconds) for name, seconds in spans.items()))
        return dict(zip(spans, answers, strict=True))

    async def _site(self, key: ModelKey) -> Site:
        model = self._model(key)
        there = None if model is not None and model.deleting else model
        return Site(key, there, self._index.adapters(key), await self._pods(key))

    async def _pods(self, key: ModelKey) -> tuple[PodState, ...]:
        return tuple(await asyncio.gather(*(self._ask(pod) for pod in self._views(key, Kind.POD, Pod))))

    def _model(self, key: ModelKey) -> Model | None:
        return next(iter(self._views(key, Kind.MODEL_DEPLOYMENT, Declared)), None)

    def _views(self, key: ModelKey, kind: Kind, view_type: type[ViewT]) -> list[ViewT]:
        return [view for view in self._index.of_model(key, kind).values() if isinstance(view, view_type)]

    async def _ask(self, pod: Pod) -> PodState:
        if not pod.running:
            return PodState(pod, silence="its container does not run")
        try:
            return PodState(pod, await self._asker.report(pod.ip))
        except SilentPodError as error:
            return PodState(pod, silence=str(error))

    async def _base(self, model: Model | None) -> BaseAnswer:
        request = base_request(model) if model is not None and not model.deleting else None
        if request is None or self._store is None:
            return BaseAnswer(silence="it is not asked")
        try:
            answer = await self._store.query(ArtifactsQuery(artifacts=[request]))
        except SilentStoreError as error:
            return BaseAnswer(silence=str(error))
        return BaseAnswer(answer.artifacts[0])

    async def _children(self, key: ModelKey, model: Model | None) -> dict[Kind, ChildView]:
        found: dict[Kind, ChildView] = {}
        wanted = self._wanted(model)
        for kind in CHILDREN:
            view = self._index.of_model(key, kind).get(child_name(kind, key.name))
            if isinstance(view, ChildView):
                found[kind] = view
            elif kind in wanted:
                try:
                    raw = await self._reader.get(kind, key.namespace, child_name(kind, key.name))
                except NotFoundError:
                    continue
                unlabelled = read(kind, raw)
                if isinstance(unlabelled, ChildView):
                    found[kind] = unlabelled
        return found

    def _wanted(self, model: Model | None) -> Collection[Kind]:
        if model is None or model.spec is None or model.deleting:
            return ()
        return wanted_children(model.spec, self._installation)
