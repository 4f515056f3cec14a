"""What the two kinds have in common: the pydantic base, metadata, conditions, sources."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue
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
    resource_version: str = ""
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


class SecretRef(KubeModel):
    """A Secret in the object's own namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253)]


_URI_FORMS = (
    "file:///path, pvc://CLAIM/path, hf://org/name, s3://bucket/path, oci://registry/name:tag or http(s)://host/path"
)
_URI_RULES: list[JsonValue] = [
    cel(
        "self.uri.matches('^(file:///.+|pvc://[a-z0-9][-a-z0-9.]*/.+|(hf|s3|oci|https?)://[^/]+/.+)$')",
        f"source.uri must be {_URI_FORMS}",
        ".uri",
    ),
    cel(
        "!has(self.revision) || self.uri.startsWith('hf://')",
        "source.revision must not be given but with hf://: name a tag, digest or other path in source.uri",
        ".revision",
    ),
    cel(
        "!has(self.secretRef) || self.uri.matches('^(hf|s3|oci|https?)://')",
        "source.secretRef must not be given but with hf://, s3://, oci:// and http(s)://: drop it",
        ".secretRef",
    ),
]


class Source(KubeModel):
    """Where a folder of files lies, and which state of it is meant."""

    model_config = ConfigDict(json_schema_extra={"x-kubernetes-validations": _URI_RULES})
    uri: Annotated[
        str,
        Field(
            max_length=2048,
            description="hf://org/name, s3://bucket/path, oci://registry/name:tag and http(s)://host/path are fetched "
            "by the adapter store; file:///path lies inside the runtime pod, pvc://CLAIM/path in a claim.",
        ),
    ]
    revision: Annotated[
        str | None, Field(min_length=1, max_length=256, description="Branch, tag or commit of an hf:// repository.")
    ] = None
    digest: Annotated[
        str | None,
        Field(
            max_length=71,
            pattern=DIGEST_PATTERN,
            description="Content digest that the files must have, as `motet-runtime digest DIR` prints it. When absent "
            "it is resolved once, recorded in status, and holds from then on.",
        ),
    ] = None
    secret_ref: Annotated[
        SecretRef | None, Field(description="Credentials of the source, in the object's own namespace.")
    ] = None

    @property
    def remote(self) -> bool:
        """Whether the adapter store fetches it; else the runtime pods read it themselves."""
        return not self.uri.startswith(("file://", "pvc://"))

    @property
    def has_revisions(self) -> bool:
        """Whether one state of it can be asked for again by name: the commit of a repository, a manifest's digest."""
        return self.uri.startswith(("hf://", "oci://"))


class ModelSource(Source):
    """Where a base model lies: a folder with `config.json`, safetensors and tokenizer, as transformers saves it."""


class AdapterSource(Source):
    """Where one adapter version lies: a folder with `adapter_config.json` and `adapter_model.safetensors`."""
