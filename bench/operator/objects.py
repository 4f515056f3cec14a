"""What is put into the cluster, and how far it has come by what its statuses say."""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from bench.operator.api import Api, Object
from localkube_lib.hollow import LABEL
from motet_api.names import API_VERSION, GROUP, LORA_ADAPTER_PLURAL, MODEL_DEPLOYMENT_PLURAL, VERSION

NAMESPACE = "bench"
_COLLECTION = f"/apis/{GROUP}/{VERSION}/namespaces/{NAMESPACE}"
MODELS, ADAPTERS = f"{_COLLECTION}/{MODEL_DEPLOYMENT_PLURAL}", f"{_COLLECTION}/{LORA_ADAPTER_PLURAL}"


@dataclass(frozen=True, slots=True)
class Size:
    """How many objects there are."""

    adapters: int
    models: int


def make_models(size: Size) -> Iterator[Object]:
    """ModelDeployments with one pod each, on hollow nodes."""
    for index in range(size.models):
        template = {
            "nodeSelector": {LABEL: "true"},
            "tolerations": [{"key": LABEL, "operator": "Exists"}],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
        }
        spec = {"model": {"source": {"uri": "file:///models/base"}}, "template": template}
        yield _object("ModelDeployment", f"base-{index:03}", spec)


def make_adapters(size: Size) -> Iterator[Object]:
    """LoraAdapters with one version each, spread evenly over the models."""
    for index in range(size.adapters):
        name = f"voice-{index:05}"
        spec = {"modelRef": {"name": f"base-{index % size.models:03}"}, "versions": [make_version(name, "v1")]}
        yield _object("LoraAdapter", name, spec)


def make_version(adapter: str, version: str) -> Object:
    """A version with its digest, as a registry of adapters would write it."""
    uri = f"file:///adapters/{adapter}/{version}"
    return {"name": version, "source": {"uri": uri, "digest": "sha256:" + hashlib.sha256(uri.encode()).hexdigest()}}


def _object(kind: str, name: str, spec: dict[str, Any]) -> Object:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


@dataclass
class Progress:
    """Follows a collection by one watch."""

    api: Api
    path: str
    ready: set[str] = field(default_factory=set)
    traffic: dict[str, dict[str, int]] = field(default_factory=dict)
    """The split in effect, by adapter."""
    events: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def follow(self) -> None:
        """Follow until cancelled; a watch that ends is begun anew, and then tells of every object again."""
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async for raw in self.api.watch(self.path):
                    self._take(raw)
                    self.changed.set()

    async def until(self, holds: Callable[[], bool], seconds: float) -> float:
        """Wait until something holds; returns when that was seen. Raises: TimeoutError."""
        async with asyncio.timeout(seconds):
            while not holds():
                self.changed.clear()
                await self.changed.wait()
        return time.monotonic()

    def _take(self, raw: Object) -> None:
        name, status = raw["metadata"]["name"], raw.get("status") or {}
        self.events += 1
        conditions = {entry["type"]: entry for entry in status.get("conditions") or []}
        current = status.get("observedGeneration") == raw["metadata"]["generation"]
        if current and conditions.get("Ready", {}).get("status") == "True":
            self.ready.add(name)
        else:
            self.ready.discard(name)
        self.traffic[name] = {target["version"]: target["weight"] for target in status.get("traffic") or []}
