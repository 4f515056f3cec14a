"""The routing table from a YAML file, for running without Kubernetes. Read again when it changes.

models:
  - name: tiny
    engine: Motet
    pods: [{name: a, address: "127.0.0.1:8000"}]
    queue: {maxRequests: 100, maxWaitSeconds: 10}
adapters:
  - name: churn
    model: tiny
    versions: [v1, v2]
    traffic: [{version: v1, weight: 90}, {version: v2, weight: 10}]
    mirror: [{version: v2, percent: 5}]
    residency: Required
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Final, NoReturn, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from motet_api.identity import NAME_PATTERN, PodName
from motet_api.loraadapter import MirrorTarget, Residency, TrafficTarget, VersionName
from motet_api.modeldeployment import EngineType, QueueSpec
from motet_api.objects import KubeModel
from motet_gateway.errors import SourceError
from motet_gateway.routing import Routing
from motet_gateway.table import Adapter, Mirror, Model, ObjectKey, Pod, PodKey, Share, Table
from motet_gateway.table_builder import build_table

log = logging.getLogger(__name__)

CHECK_SECONDS: Final = 1.0

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Address = Annotated[str, Field(pattern=r"^[^/\s]+:\d+$")]


class TableFileError(SourceError):
    """The file cannot be read, or does not describe a table; the message says where."""


class FileModel(KubeModel, extra="forbid"):
    """Base of what is in the file: written by hand, so unknown fields are mistakes."""


class PodEntry(FileModel):
    """A pod; `address` is `host:port`. `reports_at` is that of the agent which says what the pod holds (vLLM)."""

    name: Name
    address: Address
    reports_at: Address | None = None


class ModelEntry(FileModel):
    """A base model and its pods."""

    name: Name
    namespace: Name = "default"
    engine: EngineType = EngineType.MOTET
    queue: QueueSpec = QueueSpec()
    pods: list[PodEntry] = []

    @model_validator(mode="after")
    def _agents_are_known(self) -> Self:
        silent = [pod.name for pod in self.pods if pod.reports_at is None]
        if self.engine is EngineType.VLLM and silent:
            raise ValueError(f"pods of engine VLLM need reportsAt, the address of their agent: {', '.join(silent)}")
        return self


class AdapterEntry(FileModel):
    """An adapter, of a model of its own namespace unless said. With one version, `traffic` may be left out."""

    name: Name
    namespace: Name = "default"
    model: Name
    model_namespace: Name | None = None
    versions: Annotated[list[VersionName], Field(min_length=1)]
    traffic: list[TrafficTarget] | None = None
    mirror: list[MirrorTarget] = []
    residency: Residency = Residency.REQUIRED

    @model_validator(mode="after")
    def _traffic_fits(self) -> Self:
        if self.traffic is None and len(self.versions) > 1:
            raise ValueError("traffic is required with more than one version")
        for field, targets in (("traffic", self.traffic or []), ("mirror", self.mirror)):
            unknown = {target.version for target in targets} - set(self.versions)
            if unknown:
                raise ValueError(f"{field} names versions that are not listed: {', '.join(sorted(unknown))}")
        return self


class TableFile(FileModel):
    """The whole file."""

    models: list[ModelEntry]
    adapters: list[AdapterEntry] = []

    def table(self, default_namespace: str = "") -> Table:
        """The routing table."""
        models = [
            Model(ObjectKey(m.namespace, m.name), m.queue.max_requests, m.queue.max_wait_seconds, m.engine)
            for m in self.models
        ]
        pods = [
            Pod(
                PodKey(m.namespace, PodName(pod.name)),
                ObjectKey(m.namespace, m.name),
                pod.address,
                ready=True,
                reports_at=pod.reports_at or "",
            )
            for m in self.models
            for pod in m.pods
        ]
        return build_table(models, [_adapter(entry) for entry in self.adapters], pods, default_namespace)


def read_table(path: Path, default_namespace: str = "") -> Table:
    """Read the file.

    Raises:
        TableFileError: it cannot be read or is not a table.
    """
    try:
        return TableFile.model_validate(yaml.safe_load(path.read_text())).table(default_namespace)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
        raise TableFileError(f"{path}: {error}") from error


class FileSource:
    """Keeps the routing state equal to the file. A version of the file that is wrong is logged and passed over."""

    def __init__(
        self, path: Path, routing: Routing, on_failure: Callable[[], None], default_namespace: str = ""
    ) -> None:
        self._path = path
        self._routing = routing
        self._on_failure = on_failure
        self._default_namespace = default_namespace
        self._seen: tuple[int, int, int] | None = None

    async def run(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> NoReturn:
        """Follow the file for as long as the gateway runs."""
        while True:
            self.refresh()
            await sleep(CHECK_SECONDS)

    def refresh(self) -> None:
        """Read the file if it has changed since it was last read."""
        try:
            stat = self._path.stat()
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if seen == self._seen:
                return
            self._seen = seen
            self._routing.set_table(read_table(self._path, self._default_namespace))
            log.info("read the routing table from %s", self._path)
        except (OSError, TableFileError) as error:
            self._on_failure()
            log.error("kept the last routing table: %s", error)


def _adapter(entry: AdapterEntry) -> Adapter:
    traffic = entry.traffic or [TrafficTarget(version=entry.versions[0], weight=1)]
    return Adapter(
        ObjectKey(entry.namespace, entry.name),
        ObjectKey(entry.model_namespace or entry.namespace, entry.model),
        tuple(entry.versions),
        tuple(Share(target.version, target.weight) for target in traffic),
        mirror=tuple(Mirror(target.version, target.percent) for target in entry.mirror),
        residency=entry.residency,
    )
