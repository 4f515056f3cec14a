"""The routing table from a YAML file, for running without Kubernetes. Read again when it changes.

models:
  - name: tiny
    pods: [{name: a, address: "127.0.0.1:8000"}]
    queue: {maxRequests: 100, maxWaitSeconds: 10}
adapters:
  - name: churn
    model: tiny
    versions: [v1, v2]
    traffic: [{version: v1, weight: 90}, {version: v2, weight: 10}]
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Final, NoReturn, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from motet_api.identity import NAME_PATTERN, PodName
from motet_api.loraadapter import TrafficTarget, VersionName
from motet_api.modeldeployment import QueueSpec
from motet_api.objects import KubeModel
from motet_gateway.errors import SourceError
from motet_gateway.routing import Routing
from motet_gateway.table import Adapter, Model, ObjectKey, Pod, PodKey, Share, Table
from motet_gateway.table_builder import build_table

log = logging.getLogger(__name__)

CHECK_SECONDS: Final = 1.0

Name = Annotated[str, Field(pattern=NAME_PATTERN)]


class TableFileError(SourceError):
    """The file cannot be read, or does not describe a table; the message says where."""


class FileModel(KubeModel, extra="forbid"):
    """Base of what is in the file: written by hand, so unknown fields are mistakes."""


class PodEntry(FileModel):
    """A pod; `address` is `host:port`."""

    name: Name
    address: Annotated[str, Field(pattern=r"^[^/\s]+:\d+$")]


class ModelEntry(FileModel):
    """A base model and its pods."""

    name: Name
    namespace: Name = "default"
    queue: QueueSpec = QueueSpec()
    pods: list[PodEntry] = []


class AdapterEntry(FileModel):
    """An adapter of a model of the same namespace. With one version, `traffic` may be left out."""

    name: Name
    namespace: Name = "default"
    model: Name
    versions: Annotated[list[VersionName], Field(min_length=1)]
    traffic: list[TrafficTarget] | None = None

    @model_validator(mode="after")
    def _traffic_fits(self) -> Self:
        if self.traffic is None and len(self.versions) > 1:
            raise ValueError("traffic is required with more than one version")
        unknown = {target.version for target in self.traffic or []} - set(self.versions)
        if unknown:
            raise ValueError(f"traffic names versions that are not listed: {', '.join(sorted(unknown))}")
        return self


class TableFile(FileModel):
    """The whole file."""

    models: list[ModelEntry]
    adapters: list[AdapterEntry] = []

    def table(self) -> Table:
        """The routing table."""
        models = [
            Model(ObjectKey(m.namespace, m.name), m.queue.max_requests, m.queue.max_wait_seconds) for m in self.models
        ]
        pods = [
            Pod(PodKey(m.namespace, PodName(pod.name)), ObjectKey(m.namespace, m.name), pod.address, ready=True)
            for m in self.models
            for pod in m.pods
        ]
        return build_table(models, [_adapter(entry) for entry in self.adapters], pods)


def read_table(path: Path) -> Table:
    """Read the file.

    Raises:
        TableFileError: it cannot be read or is not a table.
    """
    try:
        return TableFile.model_validate(yaml.safe_load(path.read_text())).table()
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
        raise TableFileError(f"{path}: {error}") from error


class FileSource:
    """Keeps the routing state equal to the file. A version of the file that is wrong is logged and passed over."""

    def __init__(self, path: Path, routing: Routing, on_failure: Callable[[], None]) -> None:
        self._path = path
        self._routing = routing
        self._on_failure = on_failure
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
            self._routing.set_table(read_table(self._path))
            log.info("read the routing table from %s", self._path)
        except (OSError, TableFileError) as error:
            self._on_failure()
            log.error("kept the last routing table: %s", error)


def _adapter(entry: AdapterEntry) -> Adapter:
    traffic = entry.traffic or [TrafficTarget(version=entry.versions[0], weight=1)]
    return Adapter(
        ObjectKey(entry.namespace, entry.name),
        ObjectKey(entry.namespace, entry.model),
        tuple(entry.versions),
        tuple(Share(target.version, target.weight) for target in traffic),
    )
