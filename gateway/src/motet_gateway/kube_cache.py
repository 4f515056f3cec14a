"""The latest form of every object that was listed or watched, and the table that they make."""

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from motet_api.modeldeployment import EngineType
from motet_gateway.kube_objects import Kind, parse_adapter, parse_model, parse_slice
from motet_gateway.table import Model, ObjectKey, Pod, PodKey, Table
from motet_gateway.table_builder import TableBuilder

log = logging.getLogger(__name__)


class ObjectCache:
    """Takes objects of the three kinds in, whole lists or one by one."""

    def __init__(self, default_namespace: str = "") -> None:
        self._known: dict[Kind, dict[ObjectKey, str]] = {kind: {} for kind in Kind}
        """The uid and resource version of every object, so that a list read again costs only what has changed."""
        self._models: dict[ObjectKey, Model] = {}
        self._slices: dict[ObjectKey, list[Pod]] = {}
        self._builder = TableBuilder(default_namespace)
        self._pods_changed = False

    def replace(self, kind: Kind, namespace: str | None, objects: Iterable[Mapping[str, Any]]) -> None:
        """A complete list of a kind, in one namespace or (None) in all."""
        known = self._known[kind]
        listed = {_key(obj): obj for obj in objects}
        for key in [key for key in known if key not in listed and namespace in {None, key.namespace}]:
            self._remove(kind, key)
        for key, obj in listed.items():
            if known.get(key) != _form(obj):
                self.put(kind, obj)

    def put(self, kind: Kind, obj: Mapping[str, Any]) -> None:
        """An object was added or has changed. One that cannot be understood counts as absent."""
        key = _key(obj)
        try:
            match kind:
                case Kind.MODEL_DEPLOYMENT:
                    self._models[key] = model = parse_model(obj)
                    self._builder.put_model(model)
                    self._pods_changed = True
                case Kind.LORA_ADAPTER:
                    self._builder.put_adapter(parse_adapter(obj))
                case Kind.ENDPOINT_SLICE:
                    self._slices[key] = parse_slice(obj)
                    self._pods_changed = True
        except ValidationError as error:
            log.error("left %s %s out of the routing table: %s", kind, key, error)
            self._remove(kind, key)
        self._known[kind][key] = _form(obj)

    def remove(self, kind: Kind, obj: Mapping[str, Any]) -> None:
        """An object was deleted."""
        self._remove(kind, _key(obj))

    def table(self) -> Table:
        """The table that the objects make; the same one while nothing in it changes."""
        if self._pods_changed:
            self._builder.set_pods(self._pods())
            self._pods_changed = False
        return self._builder.table()

    def _remove(self, kind: Kind, key: ObjectKey) -> None:
        self._known[kind].pop(key, None)
        match kind:
            case Kind.MODEL_DEPLOYMENT:
                self._models.pop(key, None)
                self._builder.remove_model(key)
            case Kind.LORA_ADAPTER:
                self._builder.remove_adapter(key)
            case Kind.ENDPOINT_SLICE:
                self._slices.pop(key, None)
                self._pods_changed = True

    def _pods(self) -> Iterable[Pod]:
        """Each pod once.

        A pod can be in several slices for a while (slices are rebalanced, and each address family has its own): it is
        ready if one of them says so, and the first address in order of the slices' names is taken.
        """
        pods: dict[PodKey, Pod] = {}
        for _, found in sorted(self._slices.items()):
            for pod in found:
                known = pods.get(pod.key)
                if known is None or (pod.ready and not known.ready):
                    pods[pod.key] = pod
        return [pod if self._has_agent(pod) else dataclasses.replace(pod, reports_at="") for pod in pods.values()]

    def _has_agent(self, pod: Pod) -> bool:
        """Whether what the pod holds is asked at its agent: vLLM itself would not say it."""
        model = self._models.get(pod.model)
        return model is not None and model.engine is EngineType.VLLM


def _key(obj: Mapping[str, Any]) -> ObjectKey:
    return ObjectKey(obj["metadata"]["namespace"], obj["metadata"]["name"])


def _form(obj: Mapping[str, Any]) -> str:
    return f"{obj['metadata'].get('uid', '')} {obj['metadata'].get('resourceVersion', '')}"
