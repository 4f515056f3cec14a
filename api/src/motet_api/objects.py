"""What the two kinds have in common: the pydantic base, metadata, conditions, sources."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict

from motet_api.identity import DIGEST_PATTERN


class KubeModel(BaseModel):
    """Base of everything read from or written to the Kubernetes API: camelCase on the wire, frozen inside.

    Unknown fields are ignored, not refused: the API server has already pruned what the schema does not know, and during
    an upgrade the schema may be newer than the process that reads it.
    """

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")

    def to_wire(self) -> dict[str, Any]:
        """The JSON form, without absent optional fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def cel(rule: str, message: str, field_path: str | None = None) -> JsonDict:
    """One `x-kubernetes-validations` entry. The message names the field and the remedy."""
    entry: JsonDict = {"rule": rule, "message": message}
    return entry | {"fieldPath": field_path} if field_path else entry


class ObjectMeta(KubeModel):
    """The part of metadata that our code reads."""

    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None


class ConditionStatus(StrEnum):
    """The three values of a condition. Unknown is a value, not an absence."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(KubeModel):
    """A `metav1.Condition`."""

    type: Annotated[str, Field(max_length=316)]
    status: ConditionStatus
    observed_generation: int = 0
    last_transition_time: datetime
    reason: Annotated[str, Field(max_length=1024)]
    message: Annotated[str, Field(max_length=32768)] = ""


CONDITIONS_SCHEMA: JsonDict = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}

Conditions = Annotated[list[Condition], Field(default_factory=list, max_length=16, json_schema_extra=CONDITIONS_SCHEMA)]


class ModelSource(KubeModel):
    """Where a base model lies: a folder with `config.json`, safetensors and tokenizer, as transformers saves it."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                cel(
                    "self.uri.matches('^(file:///.+|pvc://[a-z0-9][-a-z0-9.]*/.+)$')",
                    "source.uri must be file:///path (inside the runtime pod) or pvc://CLAIM/path",
                )
            ]
        }
    )
    uri: Annotated[
        str,
        Field(
            max_length=2048,
            description="file:///path inside the runtime pod, or pvc://CLAIM/path in a claim of the same namespace.",
        ),
    ]


class AdapterSource(KubeModel):
    """Where one adapter version lies: a folder with `adapter_config.json` and `adapter_model.safetensors`."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                cel(
                    "self.uri.matches('^(file:///.+|pvc://[a-z0-9][-a-z0-9.]*/.+|https?://[^/]+/.+)$')",
                    "source.uri must be file:///path, pvc://CLAIM/path or http(s)://host/path of the adapter's folder",
                ),
                cel(
                    "!self.uri.startsWith('http') || has(self.digest)",
                    "source.digest is required with an http(s) source: print it with 'motet-runtime digest DIR'",
                ),
            ]
        }
    )
    uri: Annotated[
        str,
        Field(
            max_length=2048,
            description="Folder of the adapter: file:///path inside the runtime pod, pvc://CLAIM/path in a claim that "
            "the ModelDeployment lists in spec.adapters.claimNames, or http(s)://host/path.",
        ),
    ]
    digest: Annotated[
        str | None,
        Field(
            max_length=71,
            pattern=DIGEST_PATTERN,
            description="Content digest that the files must have, as `motet-runtime digest DIR` prints it.",
        ),
    ] = None
