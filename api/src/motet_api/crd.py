"""CustomResourceDefinitions from the pydantic types: pure functions of the types, so that `crds/` cannot drift.

The JSON schema that pydantic makes is turned into the structural schema that Kubernetes takes: references are inlined,
titles dropped, an optional field is one that may be absent (not one that may be null), and what a pod or the operator
fills in carries no default. `x-kubernetes-*` entries pass through from the types.
"""

from dataclasses import dataclass
from typing import Any, Final

from motet_api.loraadapter import LoraAdapter
from motet_api.modeldeployment import ModelDeployment
from motet_api.names import (
    CATEGORY,
    GROUP,
    LORA_ADAPTER_KIND,
    LORA_ADAPTER_PLURAL,
    LORA_ADAPTER_SHORT,
    MODEL_DEPLOYMENT_KIND,
    MODEL_DEPLOYMENT_PLURAL,
    MODEL_DEPLOYMENT_SHORT,
    VERSION,
)
from motet_api.objects import KubeModel

Schema = dict[str, Any]

_READY: Final = '.status.conditions[?(@.type=="Ready")]'

_UNSEEN: Final = {"observedGeneration": -1}
"""Status before the operator has spoken: without it, kstatus would take a new object for one that is well."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of `kubectl get`; those with `wide` need `-o wide`."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False
    description: str = ""

    def to_wire(self) -> Schema:
        """The entry of `additionalPrinterColumns`."""
        entry: Schema = {"name": self.name, "type": self.type, "jsonPath": self.path}
        if self.description:
            entry["description"] = self.description
        return entry | ({"priority": 1} if self.wide else {})


_READY_COLUMN: Final = Column("Ready", f"{_READY}.status", description="Whether all that spec asks for is true.")
_REASON_COLUMN: Final = Column("Reason", f"{_READY}.reason", description="Why it is, or is not, ready.")
_MESSAGE_COLUMN: Final = Column("Message", f"{_READY}.message", wide=True, description="The same, in words.")
_AGE_COLUMN: Final = Column("Age", ".metadata.creationTimestamp", "date")

_MODEL_DEPLOYMENT_COLUMNS: Final = (
    _READY_COLUMN,
    Column("Up", ".status.summary.pods", description="Pods that serve, of those wanted."),
    Column("Adapters", ".status.adapters.summary", description="Versions resident, of those wanted."),
    Column("Engine", ".spec.engine.type", description="What runs in the pods."),
    Column("Model", ".spec.model.source.uri", description="Where the base model lies."),
    _REASON_COLUMN,
    _AGE_COLUMN,
    Column("Min", ".spec.autoscaling.minReplicas", "integer", wide=True, description="Fewest pods."),
    Column("Max", ".spec.autoscaling.maxReplicas", "integer", wide=True, description="Most pods."),
    Column("Digest", ".status.source.digest", wide=True, description="What the base's files are."),
    _MESSAGE_COLUMN,
)
_LORA_ADAPTER_COLUMNS: Final = (
    _READY_COLUMN,
    Column("Model", ".spec.modelRef.name", description="The ModelDeployment that serves it."),
    Column("Traffic", ".status.summary.traffic", description="The split in effect, in percent by version."),
    Column("Versions", ".status.summary.versions", description="Versions resident, of those wanted."),
    Column("Rollout", ".status.summary.rollout", description="Where the rollout is."),
    _REASON_COLUMN,
    _AGE_COLUMN,
    Column("Residency", ".spec.residency", wide=True, description="When the pods load it."),
    _MESSAGE_COLUMN,
)


def model_deployment_crd() -> Schema:
    """The ModelDeployment's definition, with its scale subresource."""
    scale = {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    names = _names(MODEL_DEPLOYMENT_KIND, MODEL_DEPLOYMENT_PLURAL, MODEL_DEPLOYMENT_SHORT)
    return _definition(ModelDeployment, names, _MODEL_DEPLOYMENT_COLUMNS, {"scale": scale})


def lora_adapter_crd() -> Schema:
    """The LoraAdapter's definition."""
    names = _names(LORA_ADAPTER_KIND, LORA_ADAPTER_PLURAL, LORA_ADAPTER_SHORT)
    return _definition(LoraAdapter, names, _LORA_ADAPTER_COLUMNS, {})


def _names(kind: str, plural: str, short: str) -> Schema:
    return {
        "kind": kind,
        "listKind": f"{kind}List",
        "plural": plural,
        "singular": kind.lower(),
        "shortNames": [short],
        "categories": [CATEGORY],
    }


def _definition(model: type[KubeModel], names: Schema, columns: tuple[Column, ...], subresources: Schema) -> Schema:
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [column.to_wire() for column in columns],
        "subresources": {"status": {}, **subresources},
        "schema": {"openAPIV3Schema": structural_schema(model)},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names['plural']}.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }


def structural_schema(model: type[KubeModel]) -> Schema:
    """The schema of a whole object. The API server knows apiVersion, kind and metadata by itself."""
    raw = model.model_json_schema(by_alias=True)
    schema = _structural(raw, raw.get("$defs", {}))
    schema["properties"] |= {"apiVersion": {"type": "string"}, "kind": {"type": "string"}}
    schema["properties"]["metadata"] = {"type": "object"}
    schema["properties"]["status"] = _without_defaults(schema["properties"]["status"]) | {"default": _UNSEEN}
    return schema | {"required": ["spec"]}


def _structural(node: Schema, definitions: Schema) -> Schema:
    """One node: its reference resolved and null taken out, then its children likewise."""
    node = _resolved(node, definitions)
    if node.get("x-kubernetes-int-or-string"):
        return {"x-kubernetes-int-or-string": True}
    kept = {key: value for key, value in node.items() if key not in {"title", "$defs", "default"}}
    if kept.get("x-kubernetes-preserve-unknown-fields"):
        kept.pop("additionalProperties", None)
    if "properties" in kept:
        kept["properties"] = {name: _structural(child, definitions) for name, child in kept["properties"].items()}
    for key in ("items", "additionalProperties"):
        if key in kept:
            kept[key] = _structural(kept[key], definitions)
    return kept | _default(node, kept)


def _resolved(node: Schema, definitions: Schema) -> Schema:
    """The node without `$ref` and without the `anyOf` of an optional field; what stands beside them wins."""
    while "$ref" in node or "anyOf" in node:
        if "$ref" in node:
            inner = definitions[node["$ref"].rpartition("/")[2]]
        else:
            choices = [choice for choice in node["anyOf"] if choice != {"type": "null"}]
            if len(choices) > 1:
                break
            (inner,) = choices
        node = inner | {key: value for key, value in node.items() if key not in {"$ref", "anyOf"}}
    return node


def _default(node: Schema, kept: Schema) -> Schema:
    """The node's `default` entry. Of an object it is `{}`, which its fields' own defaults then fill."""
    value = node.get("default")
    if "properties" in kept:
        inner = any("default" in child for child in kept["properties"].values())
        return {"default": {}} if inner and isinstance(value, dict) else {}
    return {} if value in (None, "", [], {}) else {"default": value}


def _without_defaults(node: Schema) -> Schema:
    """Status is written whole by the operator: what it does not know must stay absent, not turn into a value."""
    kept = {key: value for key, value in node.items() if key != "default"}
    if "properties" in kept:
        kept["properties"] = {name: _without_defaults(child) for name, child in kept["properties"].items()}
    if "items" in kept:
        kept["items"] = _without_defaults(kept["items"])
    return kept
