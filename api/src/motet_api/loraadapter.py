"""The `LoraAdapter` kind: one fine-tune, its immutable versions, and how requests split between them."""

from typing import Annotated

from pydantic import ConfigDict, Field

from motet_api.identity import VERSION_PATTERN
from motet_api.names import API_VERSION, LORA_ADAPTER_KIND
from motet_api.objects import AdapterSource, Conditions, KubeModel, ObjectMeta, cel

VersionName = Annotated[str, Field(max_length=63, pattern=VERSION_PATTERN)]


class ModelRef(KubeModel):
    """The ModelDeployment, in the same namespace, that serves the adapter."""

    name: Annotated[str, Field(min_length=1, max_length=52)]


class AdapterVersion(KubeModel):
    """One set of weights. Never changes: other weights are another version."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                cel(
                    "self.source == oldSelf.source",
                    "a version's source is immutable: add a new version instead and shift spec.traffic to it",
                    ".source",
                )
            ]
        }
    )
    name: VersionName
    source: AdapterSource


class TrafficTarget(KubeModel):
    """A share of the requests that do not name a version. Shares are of the sum of all weights."""

    version: VersionName
    weight: Annotated[int, Field(ge=0, le=1_000_000)]


class LoraAdapterSpec(KubeModel):
    """What the user wants."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                cel(
                    "self.modelRef == oldSelf.modelRef",
                    "modelRef is immutable: create another LoraAdapter for another ModelDeployment",
                    ".modelRef",
                ),
                cel(
                    "!has(self.traffic) || self.traffic.all(t, self.versions.exists(v, v.name == t.version))",
                    "traffic names a version that spec.versions does not have: add the version, or drop the entry",
                    ".traffic",
                ),
                cel(
                    "!has(self.traffic) || self.traffic.exists(t, t.weight > 0)",
                    "traffic weights are all zero: give at least one version a weight above zero",
                    ".traffic",
                ),
                cel(
                    "has(self.traffic) || size(self.versions) == 1",
                    "traffic is required with more than one version: say which version gets which weight",
                    ".traffic",
                ),
            ]
        }
    )
    model_ref: ModelRef
    versions: Annotated[
        list[AdapterVersion],
        Field(
            min_length=1,
            max_length=32,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ]
    traffic: Annotated[
        list[TrafficTarget] | None,
        Field(
            min_length=1,
            max_length=32,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["version"]},
            description="Sticky split by user; may be left out with a single version, which then gets everything.",
        ),
    ] = None

    def wanted_traffic(self) -> list[TrafficTarget]:
        """The split that spec asks for, with the default of a single version filled in."""
        if self.traffic is not None:
            return self.traffic
        return [TrafficTarget(version=self.versions[0].name, weight=1)]


class VersionStatus(KubeModel):
    """What is known of one version. `ready_on` pods of `pods` that are up hold it."""

    name: VersionName
    digest: str | None = None
    rank: int | None = None
    size_bytes: int | None = None
    target_modules: list[str] = []
    ready_on: int = 0
    pods: int = 0
    conditions: Conditions


class AdapterSummary(KubeModel):
    """The same, in the form of kubectl's columns: `v1=90 v2=10` and `2/2`."""

    traffic: str = ""
    versions: str = "0/0"


class LoraAdapterStatus(KubeModel):
    """What is. `traffic` is the split in effect: it follows spec once every version in it is resident."""

    observed_generation: int = 0
    versions: Annotated[
        list[VersionStatus],
        Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}),
    ] = []
    traffic: Annotated[
        list[TrafficTarget],
        Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["version"]}),
    ] = []
    summary: AdapterSummary = AdapterSummary()
    conditions: Conditions


class LoraAdapter(KubeModel):
    """A LoRA fine-tune of a ModelDeployment's base, with its versions and their traffic."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                cel(
                    "self.metadata.name.size() <= 63",
                    "metadata.name must have at most 63 characters: it is a label value and a model name",
                )
            ]
        }
    )
    api_version: str = API_VERSION
    kind: str = LORA_ADAPTER_KIND
    metadata: ObjectMeta
    spec: LoraAdapterSpec
    status: LoraAdapterStatus | None = None
