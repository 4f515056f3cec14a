"""An API server and runtime pods in memory, for whole passes."""

from collections.abc import Mapping
from typing import Any

from motet_api.identity import Digest
from motet_api.reasons import AdapterReason
from motet_api.wire import AdapterReport, AdaptersReport, DesiredAdapter, DesiredAdapters
from motet_operator.errors import ConflictError, NotFoundError, OperatorError, SilentPodError
from motet_operator.keys import Kind
from motet_operator.kube.index import Index
from tests.operator.factories import MODEL

Raw = dict[str, Any]


class FakeCluster:
    """Keeps what is applied, gives it back as the API server would, and takes down every write."""

    def __init__(self) -> None:
        self.objects: dict[tuple[Kind, str, str], Raw] = {}
        self.writes: list[str] = []
        self.events: list[Raw] = []
        self.refuse: dict[Kind, OperatorError] = {}
        self.events_fail = False
        self.conflicts = 0
        self._version = 100

    def put(self, kind: Kind, raw: Raw) -> Raw:
        """An object that is there from the beginning, or changed by somebody else."""
        metadata = raw["metadata"]
        stored = raw | {"metadata": metadata | {"resourceVersion": self._next()}}
        self.objects[kind, metadata["namespace"], metadata["name"]] = stored
        return stored

    def show(self, index: Index) -> None:
        """What the watches would tell."""
        for (kind, _, _), raw in self.objects.items():
            index.put(kind, raw)

    async def get(self, kind: Kind, namespace: str, name: str) -> Raw:
        try:
            return self.objects[kind, namespace, name]
        except KeyError:
            raise NotFoundError(name) from None

    async def apply(self, kind: Kind, manifest: Mapping[str, Any]) -> Raw:
        metadata = manifest["metadata"]
        self.writes.append(f"apply {kind} {metadata['name']}")
        if kind in self.refuse:
            raise self.refuse[kind]
        owned = {"manager": "motet-operator", "operation": "Apply", "fieldsV1": _fields(manifest)}
        own = {"uid": f"uid-{kind}", "generation": 1, "managedFields": [owned]}
        old = self.objects.get((kind, metadata["namespace"], metadata["name"]), {})
        kept = {"status": old["status"]} if "status" in old else {}
        return self.put(kind, {**manifest, **kept, "metadata": {**metadata, **own}})

    async def apply_status(self, kind: Kind, manifest: Mapping[str, Any]) -> Raw:
        metadata = manifest["metadata"]
        self.writes.append(f"status {kind} {metadata['name']}")
        if kind in self.refuse:
            raise self.refuse[kind]
        old = await self.get(kind, metadata["namespace"], metadata["name"])
        for field in ("uid", "resourceVersion"):
            if metadata[field] != old["metadata"][field]:
                self.conflicts += 1
                raise ConflictError(f"{field} is {old['metadata'][field]} by now, not {metadata[field]}")
        return self.put(kind, old | {"status": manifest["status"]})

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        self.writes.append(f"delete {kind} {name}")
        assert self.objects[kind, namespace, name]["metadata"]["uid"] == uid
        del self.objects[kind, namespace, name]

    async def create_event(self, namespace: str, event: Mapping[str, Any]) -> None:
        if self.events_fail:
            raise OperatorError("no room for events")
        self.events.append(dict(event))

    def said(self) -> list[tuple[str, str, str]]:
        """Events as (type, object, reason)."""
        return [(event["type"], event["regarding"]["name"], event["reason"]) for event in self.events]

    def _next(self) -> str:
        self._version += 1
        return str(self._version)


def _fields(value: Any) -> Any:
    return {f"f:{key}": _fields(item) for key, item in value.items()} if isinstance(value, dict) else {}


class FakeRuntime:
    """Pods by address; each holds at once what it is told, or what `broken` says of it."""

    def __init__(self, *ips: str) -> None:
        self.told: dict[str, DesiredAdapters | None] = dict.fromkeys(ips)
        self.silent: set[str] = set()
        self.broken: dict[str, AdapterReason] = {}
        self.puts = 0

    async def report(self, ip: str) -> AdaptersReport:
        if ip in self.silent or ip not in self.told:
            raise SilentPodError("timed out")
        document = self.told[ip]
        entries = document.adapters if document is not None else []
        return AdaptersReport(
            model=MODEL,
            base_loaded=True,
            desired_known=document is not None,
            draining=False,
            max_batch_size=8,
            adapters=[self._entry(entry) for entry in entries],
        )

    async def tell(self, ip: str, document: DesiredAdapters) -> AdaptersReport:
        self.puts += 1
        if ip in self.silent:
            raise SilentPodError("timed out")
        self.told[ip] = document
        return await self.report(ip)

    def _entry(self, told: DesiredAdapter) -> AdapterReport:
        reason = self.broken.get(told.id, AdapterReason.RESIDENT)
        known = {"rank": 8, "digest": Digest("sha256:" + "a" * 64)} if reason is AdapterReason.RESIDENT else {}
        return AdapterReport(
            **{"id": told.id, "reason": reason, "uri": told.uri, "desired_digest": told.digest, "message": reason},
            **known,
        )
