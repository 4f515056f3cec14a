"""Every field of a ModelDeployment's spec changes what is made or asked for, or is listed here with who reads it."""

import types
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from motet_api.modeldeployment import ModelDeploymentSpec
from motet_operator.models.base_source import base_request
from tests.operator.factories import OTHER_DIGEST, model
from tests.operator.manifests import WITH_STORE, children

BASE: dict[str, Any] = {
    "model": {"source": {"uri": "hf://org/name"}},
    "engine": {},
    "adapters": {},
    "autoscaling": {"maxReplicas": 5, "targetQueueDepth": 4},
    "startup": {"prefetch": {"image": "AllNodes"}},
    "template": {"image": "mine:1"},
}
OTHER: dict[str, Any] = {
    "model.source.uri": "hf://org/other",
    "model.source.revision": "v2",
    "model.source.digest": OTHER_DIGEST,
    "model.source.secretRef.name": "hf",
    "model.dtype": "Float16",
    "model.maxModelLen": 64,
    "engine.type": "VLLM",
    "engine.args": ["--threads=1"],
    "engine.kvMemory": "1Gi",
    "engine.maxBatchSize": 3,
    "adapters.slots": 3,
    "adapters.slotMemory": "1Gi",
    "adapters.hostMemory": "1Gi",
    "adapters.disk": "1Gi",
    "adapters.maxRank": 8,
    "adapters.claimNames": ["a"],
    "replicas": 2,
    "autoscaling.minReplicas": 2,
    "autoscaling.maxReplicas": 6,
    "autoscaling.targetQueueDepth": 5,
    "autoscaling.scaleDown.holdSeconds": 10,
    "startup.prefetch.image": "None",
    "startup.prefetch.weights": "NodeLocal",
    "template.image": "mine:2",
    "template.imagePullPolicy": "Always",
    "template.resources.claims": [{"name": "gpu"}],
    "template.resources.requests": {"cpu": 1},
    "template.resources.limits": {"nvidia.com/gpu": 1},
    "template.nodeSelector": {"a": "b"},
    "template.tolerations": [{"key": "a"}],
    "template.env": [{"name": "A"}],
    "template.volumes": [{"name": "a"}],
    "template.volumeMounts": [{"name": "a"}],
    "template.affinity": {"nodeAffinity": {"a": "b"}},
    "template.topologySpreadConstraints": [{"maxSkew": 2}],
    "template.priorityClassName": "high",
    "template.runtimeClassName": "nvidia",
    "template.resourceClaims": [{"name": "gpu"}],
    "template.imagePullSecrets": [{"name": "pull"}],
    "template.labels": {"a": "b"},
    "template.annotations": {"a": "b"},
}
"""A value of each field that is neither its default nor that of BASE."""
ELSEWHERE = {
    "queue.maxWaitSeconds": "the gateway, which holds requests",
    "queue.maxRequests": "the gateway, which holds requests",
    "adapters.allowedNamespaces.from": "the operator, when it judges adapters",
    "adapters.allowedNamespaces.selector.matchLabels": "the operator, when it judges adapters",
}
"""Who reads the fields that say nothing of pods; that somebody does is tests/house's to check."""


def fields(kind: type[BaseModel], path: str = "") -> Iterator[str]:
    """Every field below a type that is no object of ours itself, as YAML names it."""
    for name, field in kind.model_fields.items():
        here = f"{path}{field.alias or name}"
        inner = _object(field.annotation)
        yield from fields(inner, f"{here}.") if inner is not None else [here]


def _object(annotation: Any) -> type[BaseModel] | None:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        (annotation,) = [choice for choice in typing.get_args(annotation) if choice is not type(None)]
    if typing.get_origin(annotation) is typing.Annotated:
        return _object(typing.get_args(annotation)[0])
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def changed(path: str, value: Any) -> dict[str, Any]:
    """BASE with one field set."""
    *parents, last = path.split(".")
    whole = here = dict(BASE)
    for parent in parents:
        here[parent] = dict(here.get(parent, {}))
        here = here[parent]
    here[last] = value
    return whole


def outcome(spec: dict[str, Any]) -> Any:
    """All that the operator makes of a spec, and what it asks the store for."""
    return children(WITH_STORE, **spec), base_request(model(**spec))


def test_every_field_is_listed() -> None:
    assert set(fields(ModelDeploymentSpec)) == {*OTHER, *ELSEWHERE}
    assert not set(OTHER) & set(ELSEWHERE)


@pytest.mark.parametrize(("path", "value"), OTHER.items(), ids=OTHER)
def test_a_change_of_the_field_changes_something(path: str, value: Any) -> None:
    assert outcome(changed(path, value)) != outcome(BASE)


def test_no_change_changes_nothing() -> None:
    assert outcome(dict(BASE)) == outcome(BASE)
