"""From Kubernetes objects to the routing table. Pure: what was listed or watched goes in, a table comes out."""

import logging
from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from pydantic import ValidationError

from motet_api.identity import PodName
from motet_api.loraadapter import LoraAdapter
from motet_api.modeldeployment import ModelDeployment
from motet_api.names import MODEL_LABEL, SERVING_PORT, SERVING_PORT_NAME
from motet_gateway.table import Adapter, Model, ObjectKey, Pod, PodKey, Share, Source, Table, build_table

log = logging.getLogger(__name__)


class Kind(StrEnum):
    """The kinds that make the table."""

    MODEL_DEPLOYMENT = "ModelDeployment"
    LORA_ADAPTER = "LoraAdapter"
    ENDPOINT_SLICE = "EndpointSlice"


IPV4: Final = "IPv4"


class ObjectCache:
    """The latest form of every object, by kind, and the table that they make."""

    def __init__(self) -> None:
        self._models: dict[ObjectKey, Model] = {}
        self._adapters: dict[ObjectKey, Adapter] = {}
        self._pods: dict[ObjectKey, list[Pod]] = {}

    def replace(self, kind: Kind, namespace: str | None, objects: Iterable[Mapping[str, Any]]) -> None:
        """A complete list of a kind, in one namespace or (None) in all."""
        listed = list(objects)
        present = {_key(obj) for obj in listed}
        for key in [key for key in self._of(kind) if key not in present and namespace in {None, key.namespace}]:
            del self._of(kind)[key]
        for obj in listed:
            self.put(kind, obj)

    def put(self, kind: Kind, obj: Mapping[str, Any]) -> None:
        """An object was added or has changed. One that cannot be understood counts as absent."""
        key = _key(obj)
        try:
            match kind:
                case Kind.MODEL_DEPLOYMENT:
                    self._models[key] = parse_model(obj)
                case Kind.LORA_ADAPTER:
                    self._adapters[key] = parse_adapter(obj)
                case Kind.ENDPOINT_SLICE:
                    self._pods[key] = parse_slice(obj)
        except ValidationError as error:
            log.error("left %s %s out of the routing table: %s", kind, key, error)
            self._of(kind).pop(key, None)

    def remove(self, kind: Kind, obj: Mapping[str, Any]) -> None:
        """An object was deleted."""
        self._of(kind).pop(_key(obj), None)

    def table(self) -> Table:
        """The table that the objects make.

        A pod can be in several slices for a while (slices are rebalanced, and each address family has its own): it is
        ready if one of them says so, and the first address in order of the slices' names is taken.
        """
        pods: dict[PodKey, Pod] = {}
        for _, found in sorted(self._pods.items()):
            for pod in found:
                known = pods.get(pod.key)
                if known is None or (pod.ready and not known.ready):
                    pods[pod.key] = pod
        return build_table(self._models.values(), self._adapters.values(), pods.values())

    def _of(self, kind: Kind) -> dict[ObjectKey, Any]:
        match kind:
            case Kind.MODEL_DEPLOYMENT:
                return self._models
            case Kind.LORA_ADAPTER:
                return self._adapters
            case Kind.ENDPOINT_SLICE:
                return self._pods


def parse_model(obj: Mapping[str, Any]) -> Model:
    """Raises: ValidationError."""
    model = ModelDeployment.model_validate(obj)
    return Model(
        ObjectKey(model.metadata.namespace, model.metadata.name),
        max_requests=model.spec.queue.max_requests,
        max_wait_seconds=model.spec.queue.max_wait_seconds,
        created=_seconds(model.metadata.creation_timestamp),
    )


def parse_adapter(obj: Mapping[str, Any]) -> Adapter:
    """The versions are those of spec, the traffic is that of status: the split in effect.

    Raises: ValidationError.
    """
    adapter = LoraAdapter.model_validate(obj)
    traffic = adapter.status.traffic if adapter.status else []
    return Adapter(
        ObjectKey(adapter.metadata.namespace, adapter.metadata.name),
        ObjectKey(adapter.metadata.namespace, adapter.spec.model_ref.name),
        versions=tuple(version.name for version in adapter.spec.versions),
        traffic=tuple(Share(target.version, target.weight) for target in traffic),
        sources={version.name: Source(version.source.uri, version.source.digest) for version in adapter.spec.versions},
        created=_seconds(adapter.metadata.creation_timestamp),
    )


def parse_slice(obj: Mapping[str, Any]) -> list[Pod]:
    """The pods of an EndpointSlice; none for one that is of no model, or whose addresses are names."""
    metadata = obj["metadata"]
    namespace = metadata["namespace"]
    name = (metadata.get("labels") or {}).get(MODEL_LABEL)
    if not name or obj.get("addressType") not in {IPV4, "IPv6"}:
        return []
    model = ObjectKey(namespace, name)
    port = _serving_port(obj.get("ports") or [])
    pods = []
    for endpoint in obj.get("endpoints") or []:
        host = endpoint["addresses"][0]
        target = endpoint.get("targetRef") or {}
        address = f"{host}:{port}" if obj["addressType"] == IPV4 else f"[{host}]:{port}"
        # Absent means ready (the API's rule); the endpoint controller always sets it.
        ready = (endpoint.get("conditions") or {}).get("ready") is not False
        pods.append(Pod(PodKey(namespace, PodName(target.get("name") or host)), model, address, ready))
    return pods


def _serving_port(ports: list[Mapping[str, Any]]) -> int:
    named = [port.get("port") for port in ports if port.get("name") == SERVING_PORT_NAME]
    return int(named[0]) if named and named[0] else SERVING_PORT


def _key(obj: Mapping[str, Any]) -> ObjectKey:
    return ObjectKey(obj["metadata"]["namespace"], obj["metadata"]["name"])


def _seconds(when: datetime | None) -> int:
    return 0 if when is None else int(when.timestamp())
