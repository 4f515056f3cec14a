"""A whole installation in memory, for adapters: pods that take time to load, a store, a gateway, and a fuse.

The fuse ends the operator's process at a chosen write, as a power cut would: nothing after it happens.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from motet_api.identity import Digest
from motet_api.loraadapter import TrafficTarget
from motet_api.policy import Policy
from motet_api.reasons import AdapterReason
from motet_api.store import (
    ArtifactReport,
    ArtifactRequest,
    ArtifactsAnswer,
    ArtifactsQuery,
    ArtifactState,
    References,
    Refusal,
)
from motet_api.wire import (
    AdapterOutcome,
    AdapterReport,
    AdaptersReport,
    BaseDescription,
    DesiredAdapter,
    DesiredAdapters,
    VersionOutcome,
)
from motet_operator.clients.artifacts import ArtifactBook
from motet_operator.clients.store_client import StoreClient
from motet_operator.errors import SilentPodError, SilentStoreError
from motet_operator.keys import Kind, ModelKey, ObjectName
from motet_operator.kube.index import Index
from motet_operator.passes.act import Actor
from motet_operator.passes.applied import AppliedMemory
from motet_operator.passes.observe import Observer, Witnesses
from motet_operator.passes.reconciler import Reconciler
from motet_operator.passes.report import Reporter
from tests.operator.factories import INSTALLATION, KEY, NAMESPACE, NOW
from tests.operator.fakes import FakeCluster

BASE = BaseDescription(model="llama", hidden_size=8, dtype_bytes=2, modules={"q": (8, 8)})
STORE_URL = "http://store:8002"


class KilledError(BaseException):
    """The process is gone."""


@dataclass
class Fuse:
    """Lets so many writes through and ends the process with the last of them; None never burns."""

    left: int | None = None
    burnt: bool = False

    def enter(self) -> None:
        """Before a write."""
        if self.burnt:
            raise KilledError

    def leave(self) -> None:
        """After a write."""
        if self.left is None:
            return
        self.left -= 1
        if self.left == 0:
            self.burnt = True
            raise KilledError


class FusedCluster(FakeCluster):
    """An API server whose writes go through the fuse of the process that makes them."""

    def __init__(self) -> None:
        super().__init__()
        self.fuse = Fuse()

    async def apply(self, kind: Kind, manifest: Mapping[str, Any]) -> dict[str, Any]:
        self.fuse.enter()
        raw = await super().apply(kind, manifest)
        self.fuse.leave()
        return raw

    async def apply_status(self, kind: Kind, manifest: Mapping[str, Any]) -> dict[str, Any]:
        self.fuse.enter()
        raw = await super().apply_status(kind, manifest)
        self.fuse.leave()
        return raw

    async def create_event(self, namespace: str, event: Mapping[str, Any]) -> None:
        self.fuse.enter()
        await super().create_event(namespace, event)
        self.fuse.leave()


@dataclass
class FakePod:
    """Holds what it is told, one look later; `sizes` are of its adapters, by runtime id."""

    capacity: int | None = None
    document: DesiredAdapters | None = None
    held: dict[str, AdapterReason] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    broken: dict[str, AdapterReason] = field(default_factory=dict)
    silent: bool = False

    def tick(self) -> None:
        """A moment passes: what was loading is resident, or has failed."""
        for entry in self.document.adapters if self.document is not None else []:
            self.held[entry.id] = self.broken.get(entry.id, AdapterReason.RESIDENT)

    def tell(self, document: DesiredAdapters) -> None:
        """Take in a document."""
        self.document = document
        wanted = {entry.id for entry in document.adapters}
        self.held = {name: reason for name, reason in self.held.items() if name in wanted}
        for name in wanted:
            self.held.setdefault(name, AdapterReason.LOADING)

    def report(self) -> AdaptersReport:
        """What it says."""
        entries = self.document.adapters if self.document is not None else []
        return AdaptersReport(
            model="llama",
            base_loaded=True,
            desired_known=self.document is not None,
            draining=False,
            max_batch_size=8,
            base_digest=BASE.digest(),
            adapter_bytes=self.capacity,
            adapters=[self._entry(entry) for entry in entries],
        )

    def _entry(self, told: DesiredAdapter) -> AdapterReport:
        reason = self.held[told.id]
        known = reason is AdapterReason.RESIDENT
        return AdapterReport(
            id=told.id,
            reason=reason,
            message=str(reason) if reason.failed else "",
            uri=told.uri,
            desired_digest=told.digest,
            residency=told.residency,
            digest=(told.digest or digest_of(told.uri)) if known else None,
            rank=8 if known else None,
            size_bytes=self.sizes.get(told.id, 10) if known else None,
        )


class FakePods:
    """Pods by address, told through the fuse."""

    def __init__(self, fuse: FusedCluster) -> None:
        self._cluster = fuse
        self.pods: dict[str, FakePod] = {}

    async def report(self, ip: str) -> AdaptersReport:
        if ip not in self.pods or self.pods[ip].silent:
            raise SilentPodError("timed out")
        return self.pods[ip].report()

    async def base(self, ip: str) -> BaseDescription:
        await self.report(ip)
        return BASE

    async def tell(self, ip: str, document: DesiredAdapters) -> AdaptersReport:
        self._cluster.fuse.enter()
        if self.pods[ip].silent:
            raise SilentPodError("timed out")
        self.pods[ip].tell(document)
        self._cluster.fuse.leave()
        return self.pods[ip].report()


@dataclass
class FakeStore:
    """Needs one question to begin with an artifact, and has it at the next. `refuses` are reports by URI."""

    asked: list[list[ArtifactRequest]] = field(default_factory=list)
    begun: set[str] = field(default_factory=set)
    fetched: set[str] = field(default_factory=set)
    bases: set[str] = field(default_factory=set)
    refuses: dict[str, ArtifactReport] = field(default_factory=dict)
    moved: dict[str, Digest] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)
    references: References | None = None
    silent: bool = False

    async def query(self, query: ArtifactsQuery) -> ArtifactsAnswer:
        if self.silent:
            raise SilentStoreError("cannot connect")
        self.asked.append(list(query.artifacts))
        unknown = {entry.base_digest for entry in query.artifacts if entry.base_digest} - self.bases
        return ArtifactsAnswer(
            artifacts=[self._report(entry) for entry in query.artifacts],
            unknown_bases=sorted(digest for digest in unknown if digest),
        )

    async def put_base(self, digest: Digest, base: BaseDescription) -> None:
        self.bases.add(digest)

    async def put_references(self, references: References) -> None:
        if self.silent:
            raise SilentStoreError("cannot connect")
        self.references = references

    def _report(self, request: ArtifactRequest) -> ArtifactReport:
        if request.uri in self.refuses:
            return self.refuses[request.uri]
        if request.uri not in self.begun:
            self.begun.add(request.uri)
            return ArtifactReport(state=ArtifactState.FETCHING, size_bytes=100, fetched_bytes=35)
        if request.max_bytes is not None and request.max_bytes < 10:
            return ArtifactReport(state=ArtifactState.LISTED, size_bytes=10)
        self.fetched.add(request.uri)
        rank = self.ranks.get(request.uri, 8)
        mismatch = None
        if request.max_rank is not None and rank > request.max_rank:
            message = f"rank {rank} is above {request.max_rank}"
            mismatch = Refusal(reason=AdapterReason.RANK_TOO_LARGE, message=message)
        fits = True if request.base_digest in self.bases else None
        return ArtifactReport(
            state=ArtifactState.VERIFIED,
            digest=request.digest or self.moved.get(request.uri) or digest_of(request.uri),
            revision=self.revisions.get(request.uri, ""),
            size_bytes=10,
            rank=rank,
            compatible=False if mismatch else fits,
            mismatch=mismatch,
        )


class FakeGateway:
    """Follows status, one look later. `outcomes` is what it has counted of a version."""

    def __init__(self, cluster: FakeCluster) -> None:
        self._cluster = cluster
        self.following: dict[ObjectName, list[TrafficTarget]] = {}
        self.outcomes: dict[str, VersionOutcome] = {}
        self.silent = False
        self.blind = False
        self.asked = 0

    def tick(self) -> None:
        """A moment passes: it has seen what status says by now, unless the API server is out of its reach."""
        if self.blind:
            return
        for (kind, namespace, name), raw in self._cluster.objects.items():
            if kind is Kind.LORA_ADAPTER:
                traffic = raw.get("status", {}).get("traffic", [])
                self.following[namespace, name] = [TrafficTarget.model_validate(target) for target in traffic]

    async def ask(self, adapter: ObjectName, seconds: float) -> tuple[AdapterOutcome | None, ...]:
        self.asked += 1
        if self.silent:
            return (None,)
        return (
            AdapterOutcome(
                namespace=adapter[0],
                name=adapter[1],
                following=self.following.get(adapter),
                versions=list(self.outcomes.values()),
            ),
        )


class AdapterWorld:
    """The operator's parts around a cluster, pods, and, where wanted, a store and a gateway."""

    def __init__(
        self, *, store: bool | StoreClient = False, gateway: bool = False, policy: Policy | None = None
    ) -> None:
        """`store` is a fake one if it is True, or the way to a real one."""
        self.cluster = FusedCluster()
        self.pods = FakePods(self.cluster)
        self.store = FakeStore() if store is True else None
        self._asked = store if isinstance(store, StoreClient) else self.store
        self.gateway = FakeGateway(self.cluster) if gateway else None
        self.policy = policy or Policy()
        self.now = NOW
        self.seconds = 0.0
        self.woken: list[ModelKey] = []
        self.restart()

    def restart(self, writes: int | None = None) -> None:
        """A new process that remembers nothing, and dies at so many writes."""
        self.cluster.fuse = Fuse(writes)
        self.index, applied = Index(), AppliedMemory()
        installation = replace(INSTALLATION, store=STORE_URL if self._asked else "")
        witnesses = Witnesses(
            artifacts=ArtifactBook(self._asked, self.pods, lambda: self.seconds) if self._asked else None,
            gateways=self.gateway,
            policy=lambda: self.policy,
            sees_namespaces=True,
            now=lambda: self.now,
        )
        self.reconciler = Reconciler(
            Observer(self.index, self.cluster, self.pods, applied, installation, self._asked, witnesses),
            Actor(self.cluster, self.pods, self.index, applied),
            Reporter(self.cluster, self.index, self.woken.append),
            installation,
            lambda: self.now,
        )

    def asks(self, store: StoreClient | None) -> None:
        """A new process that asks another store, or none."""
        self._asked = store
        self.restart()

    def tick(self, seconds: float = 1.0) -> None:
        """Time passes for everybody else."""
        self.now += timedelta(seconds=seconds)
        self.seconds += seconds
        for pod in self.pods.pods.values():
            pod.tick()
        if self.gateway is not None:
            self.gateway.tick()

    async def run(self, *keys: ModelKey) -> float | None:
        """One pass over each key, after the watches have told everything; when to look again."""
        self.tick()
        again = None
        for key in keys or (KEY,):
            self.cluster.show(self.index)
            again = await self.reconciler.reconcile(key)
        return again

    async def converge(self, *keys: ModelKey, passes: int = 40) -> None:
        """Passes until three in a row have written nothing."""
        quiet = 0
        for _ in range(passes):
            before = len(self.cluster.writes)
            told = [pod.document for pod in self.pods.pods.values()]
            await self.run(*keys)
            same = told == [pod.document for pod in self.pods.pods.values()]
            quiet = quiet + 1 if same and len(self.cluster.writes) == before else 0
            if quiet == 3:
                return
        raise AssertionError(f"still writing after {passes} passes: {self.cluster.writes[-4:]}")

    def status(self, name: str = "voice", namespace: str = NAMESPACE) -> dict[str, Any]:
        """The status of an adapter."""
        found: dict[str, Any] = self.cluster.objects[Kind.LORA_ADAPTER, namespace, name]["status"]
        return found

    def split(self, name: str = "voice") -> dict[str, int]:
        """The split in effect."""
        return {entry["version"]: entry["weight"] for entry in self.status(name)["traffic"]}

    def condition(self, kind: str, version: str | None = None, name: str = "voice") -> tuple[str, str]:
        """Status and reason of a condition, of the adapter or of a version."""
        holder = self.status(name)
        if version is not None:
            (holder,) = [entry for entry in holder["versions"] if entry["name"] == version]
        (found,) = [entry for entry in holder["conditions"] if entry["type"] == kind]
        return found["status"], found["reason"]

    def message(self, kind: str, version: str | None = None, name: str = "voice") -> str:
        """Message of a condition."""
        holder = self.status(name)
        if version is not None:
            (holder,) = [entry for entry in holder["versions"] if entry["name"] == version]
        (found,) = [entry for entry in holder["conditions"] if entry["type"] == kind]
        return str(found["message"])

    def told(self, ip: str) -> dict[str, DesiredAdapter]:
        """What a pod was told last, by runtime id."""
        document = self.pods.pods[ip].document
        return {entry.id: entry for entry in document.adapters} if document is not None else {}


def digest_of(uri: str) -> Digest:
    """The digest of what lies at a URI."""
    return Digest("sha256:" + uri.encode().hex().ljust(64, "0")[-64:])


def at(when: datetime) -> str:
    """As an object's metadata says it."""
    return when.isoformat().replace("+00:00", "Z")
