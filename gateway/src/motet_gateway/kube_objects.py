"""What a Kubernetes object says to the routing table. Pure."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from motet_api.identity import PodName
from motet_api.loraadapter import LoraAdapter, LoraAdapterStatus, ModelRef, VersionStatus
from motet_api.modeldeployment import ModelDeployment
from motet_api.names import MODEL_LABEL, REPORT_PORT, REPORT_PORT_NAME, SERVING_PORT, SERVING_PORT_NAME
from motet_api.objects import AdapterSource
from motet_api.reasons import ConditionType, Reason
from motet_gateway.table import Adapter, Mirror, Model, ObjectKey, Pod, PodKey, Share, Source


class Kind(StrEnum):
    """The kinds that make the table."""

    MODEL_DEPLOYMENT = "ModelDeployment"
    LORA_ADAPTER = "LoraAdapter"
    ENDPOINT_SLICE = "EndpointSlice"


IPV4: Final = "IPv4"


def parse_model(obj: Mapping[str, Any]) -> Model:
    """Raises: ValidationError."""
    model = ModelDeployment.model_validate(obj)
    return Model(
        ObjectKey(model.metadata.namespace, model.metadata.name),
        max_requests=model.spec.queue.max_requests,
        max_wait_seconds=model.spec.queue.max_wait_seconds,
        engine=model.spec.engine.type,
        created=_seconds(model.metadata.creation_timestamp),
    )


def parse_adapter(obj: Mapping[str, Any]) -> Adapter:
    """The split and the mirrors are those in effect, of status. The versions are those of spec and those of status.

    A version that has left spec stays in status until the split has left it and nothing uses it: it is served so long,
    even if spec has given its name to another source.

    Raises: ValidationError.
    """
    adapter = LoraAdapter.model_validate(obj)
    status = adapter.status or LoraAdapterStatus(conditions=[])
    key = ObjectKey(adapter.metadata.namespace, adapter.metadata.name)
    model = _model_key(adapter.spec.model_ref, key.namespace)
    known = {version.name: version for version in status.versions}
    sources: dict[str, Source] = {}
    models: dict[str, ObjectKey] = {}
    for version in adapter.spec.versions:
        recorded = known.get(version.name)
        if recorded is not None and not recorded.is_about(version):
            continue
        sources[version.name] = _source(version.source, recorded)
        models[version.name] = _model_key(adapter.spec.model_of(version), key.namespace)
    for leaving in status.versions:
        # A version without a source is of an operator that did not keep it: what it means cannot be known any more.
        if leaving.name not in sources and leaving.source is not None:
            sources[leaving.name] = _source(leaving.source, leaving)
            models[leaving.name] = _model_key(leaving.model_ref or adapter.spec.model_ref, key.namespace)
    return Adapter(
        key,
        model,
        versions=tuple(sources),
        traffic=tuple(Share(target.version, target.weight) for target in status.traffic),
        sources=sources,
        models={name: each for name, each in models.items() if each != model},
        mirror=tuple(Mirror(target.version, target.percent) for target in status.mirror if target.version in sources),
        residency=adapter.spec.residency,
        created=_seconds(adapter.metadata.creation_timestamp),
        served=_served(status),
    )


def _served(status: LoraAdapterStatus) -> tuple[str, ...]:
    """The versions that a model has taken. What has its share from before it was refused is served no more."""
    shares = {target.version for target in status.traffic if target.weight > 0}
    return tuple(
        version.name
        for version in status.versions
        if (version.name in shares or version.ready_on) and not _is_refused(version)
    )


def _is_refused(version: VersionStatus) -> bool:
    return any(
        condition.type == ConditionType.RESIDENT and condition.reason == Reason.NOT_ALLOWED
        for condition in version.conditions
    )


def _source(source: AdapterSource, known: VersionStatus | None) -> Source:
    """The source, with the digest that status has found for it where spec names none."""
    if source.digest is not None or known is None:
        return Source(source.uri, source.digest)
    return Source(source.uri, known.digest)


def _model_key(ref: ModelRef, namespace: str) -> ObjectKey:
    return ObjectKey(ref.namespace or namespace, ref.name)


def parse_slice(obj: Mapping[str, Any]) -> list[Pod]:
    """The pods of an EndpointSlice, with the agent's address; none if it is of no model, or has names for addresses."""
    metadata = obj["metadata"]
    namespace = metadata["namespace"]
    name = (metadata.get("labels") or {}).get(MODEL_LABEL)
    if not name or obj.get("addressType") not in {IPV4, "IPv6"}:
        return []
    model = ObjectKey(namespace, name)
    ports = obj.get("ports") or []
    serving, report = _port(ports, SERVING_PORT_NAME, SERVING_PORT), _port(ports, REPORT_PORT_NAME, REPORT_PORT)
    pods = []
    for endpoint in obj.get("endpoints") or []:
        address = endpoint["addresses"][0]
        host = address if obj["addressType"] == IPV4 else f"[{address}]"
        target = endpoint.get("targetRef") or {}
        # Absent means ready (the API's rule); the endpoint controller always sets it.
        ready = (endpoint.get("conditions") or {}).get("ready") is not False
        pod = PodKey(namespace, PodName(target.get("name") or address))
        pods.append(Pod(pod, model, f"{host}:{serving}", ready, reports_at=f"{host}:{report}"))
    return pods


def _port(ports: list[Mapping[str, Any]], name: str, default: int) -> int:
    named = [port.get("port") for port in ports if port.get("name") == name]
    return int(named[0]) if named and named[0] else default


def _seconds(when: datetime | None) -> int:
    return 0 if when is None else int(when.timestamp())
