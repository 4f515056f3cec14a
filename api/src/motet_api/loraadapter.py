"""The `LoraAdapter` kind: one fine-tune, its immutable versions, and how requests split between them."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

from pydantic import ConfigDict, Field

from motet_api.identity import VERSION_PATTERN
from motet_api.names import API_VERSION, LORA_ADAPTER_KIND
from motet_api.objects import AdapterSource, Conditions, KubeModel, ObjectMeta, cel

MOST_VERSIONS: Final = 128
"""Versions in a status: those in spec, those that a split or a rollout may still need, and those that retire."""
VersionName = Annotated[str, Field(max_length=63, pattern=VERSION_PATTERN)]


class ModelRef(KubeModel):
    """A ModelDeployment. In another namespace only where its `spec.adapters.allowedNamespaces` permits it."""

    name: Annotated[str, Field(min_length=1, max_length=52)]
    namespace: Annotated[
        str | None, Field(min_length=1, max_length=63, description="The adapter's own namespace when absent.")
    ] = None


class Residency(StrEnum):
    """How firmly the pods hold an adapter."""

    REQUIRED = "Required"
    """On every pod; a pod without it is not Ready."""
    PREFERRED = "Preferred"
    """On as many pods as it fits on beside what is required; at least one is wanted."""
    ON_DEMAND = "OnDemand"
    """Known to every pod, loaded by the first request that names it."""


def _unchanged(field: str) -> str:
    """CEL: an optional field is what it was."""
    return f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"


class AdapterVersion(KubeModel):
    """One set of weights. Never changes: other weights are another version."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                # Not by `.?`: the API server cannot bound the cost of comparing optional values, and refuses the CRD.
                cel(
                    f"self.source.uri == oldSelf.source.uri && {_unchanged('source.revision')}"
                    f" && {_unchanged('source.digest')}",
                    "a version's source is immutable: add a new version instead and shift spec.traffic to it",
                    ".source",
                ),
                cel(
                    _unchanged("modelRef"),
                    "a version's modelRef is immutable: add a new version instead and shift spec.traffic to it",
                    ".modelRef",
                ),
            ]
        }
    )
    name: VersionName
    source: AdapterSource
    model_ref: Annotated[
        ModelRef | None,
        Field(description="The ModelDeployment that serves this version, where it is not spec.modelRef's."),
    ] = None


class TrafficTarget(KubeModel):
    """A share of the requests that do not name a version. Shares are of the sum of all weights."""

    version: VersionName
    weight: Annotated[int, Field(ge=0, le=1_000_000)]


class MirrorTarget(KubeModel):
    """A version that sees a copy of a share of the requests; its answers are compared and thrown away."""

    version: VersionName
    percent: Annotated[int, Field(ge=1, le=100, description="Share of the requests that are copied.")]


class RolloutStep(KubeModel):
    """One step from the split in effect to the one in spec.traffic."""

    weight: Annotated[
        int, Field(ge=0, le=100, description="How far, in percent of the way; 0 shifts nothing (mirroring only).")
    ]
    bake_seconds: Annotated[
        int, Field(ge=0, le=604_800, description="Seconds at this step within the limits before the next one begins.")
    ]


class RolloutLimits(KubeModel):
    """Bounds on the versions that gain traffic; one that is passed takes the rollout back. Absent: not looked at."""

    error_percent: Annotated[
        int | None, Field(ge=0, le=100, description="Most requests that may fail, in percent.")
    ] = None
    p95_latency_milliseconds: Annotated[
        int | None, Field(ge=1, le=3_600_000, description="Most time that 95% of the requests may take.")
    ] = None
    agreement_percent: Annotated[
        int | None,
        Field(
            ge=0, le=100, description="Fewest mirrored requests whose answer equals the current version's, in percent."
        ),
    ] = None
    score_drift_percent: Annotated[
        int | None,
        Field(
            ge=0,
            le=100,
            description="Most mean absolute difference of label probabilities from the current version's, in points.",
        ),
    ] = None
    min_requests: Annotated[
        int, Field(ge=1, le=1_000_000, description="A limit is judged, and a step passed, from so many requests on.")
    ] = 20


class RolloutAction(StrEnum):
    """What to do with a rollout now."""

    RUN = "Run"
    """Go step by step."""
    PAUSE = "Pause"
    """Stay at the present step; the limits still hold."""
    PROMOTE = "Promote"
    """Go to spec.traffic at once, past the remaining steps and limits."""
    ABORT = "Abort"
    """Go back to the split before the rollout, and stay there."""


class RolloutSpec(KubeModel):
    """How the split moves to spec.traffic."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                cel(
                    "self.steps.map(s, s.weight).isSorted()",
                    "rollout.steps must not go back: order them by weight",
                    ".steps",
                ),
                cel(
                    "!has(self.limits) || !(has(self.limits.agreementPercent) || has(self.limits.scoreDriftPercent))"
                    " || self.mirrorPercent > 0",
                    "limits.agreementPercent and limits.scoreDriftPercent compare mirrored requests: "
                    "rollout.mirrorPercent must be above zero",
                    ".mirrorPercent",
                ),
                # Steps are sorted: where one has no weight the first has none.
                cel(
                    "!has(self.limits) || self.mirrorPercent > 0 || self.steps[0].weight > 0",
                    "limits are judged by requests, and a step of weight 0 gives a version none: "
                    "rollout.mirrorPercent must be above zero, or drop the step",
                    ".mirrorPercent",
                ),
            ]
        }
    )
    steps: Annotated[list[RolloutStep], Field(min_length=1, max_length=20)]
    limits: RolloutLimits | None = None
    mirror_percent: Annotated[
        int,
        Field(
            ge=0,
            le=100,
            description="Share of the requests of versions that do not gain traffic that is copied to those that do.",
        ),
    ] = 0
    action: RolloutAction = RolloutAction.RUN


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
                cel(
                    "!has(self.mirror) || self.mirror.all(m, self.versions.exists(v, v.name == m.version))",
                    "mirror names a version that spec.versions does not have: add the version, or drop the entry",
                    ".mirror",
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
    mirror: Annotated[
        list[MirrorTarget],
        Field(
            max_length=4,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["version"]},
            description="Versions that see a copy of the requests and whose answers are thrown away.",
        ),
    ] = []
    residency: Residency = Residency.REQUIRED
    rollout: Annotated[
        RolloutSpec | None,
        Field(description="Steps to spec.traffic; when absent the split moves at once when it can be served."),
    ] = None

    def model_of(self, version: AdapterVersion) -> ModelRef:
        """The ModelDeployment that serves a version."""
        return version.model_ref or self.model_ref

    def wanted_traffic(self) -> list[TrafficTarget]:
        """The split that spec asks for, with the default of a single version filled in."""
        if self.traffic is not None:
            return self.traffic
        return [TrafficTarget(version=self.versions[0].name, weight=1)]


class VersionStatus(KubeModel):
    """What is known of one version. `ready_on` of the `pods` that should hold it do.

    `source` and `model_ref` are kept because a version that has left spec is still served until nothing uses it.
    """

    name: VersionName
    source: AdapterSource | None = None
    model_ref: ModelRef | None = None
    digest: str | None = None
    revision: Annotated[
        str | None, Field(description="The commit, or manifest, that the bytes were found at: asked for from then on.")
    ] = None
    rank: int | None = None
    size_bytes: int | None = None
    held_bytes: Annotated[int | None, Field(description="What it takes on a pod, in the base's type.")] = None
    target_modules: list[str] = []
    ready_on: int = 0
    pods: int = 0
    conditions: Conditions

    def is_about(self, version: AdapterVersion) -> bool:
        """Whether it is about this version of spec, and not about another that had its name and is still served."""
        if self.source is None:
            return True
        mine, its = self.source, version.source
        same = (mine.uri, mine.revision, self.model_ref) == (its.uri, its.revision, version.model_ref)
        return same and its.digest in {None, mine.digest, self.digest}


class RolloutResult(StrEnum):
    """How a rollout stands."""

    PROGRESSING = "Progressing"
    COMPLETED = "Completed"
    ROLLED_BACK = "RolledBack"
    ABORTED = "Aborted"


class RolloutStatus(KubeModel):
    """Where the rollout to one target is. `key` tells targets apart: what was asked for, without `action`.

    `step` is an index of spec.rollout.steps, equal to their number once all are done; `step_started` is when the split
    of that step was in effect. After a rollback `message` says what was wrong, and `origin` stays in effect until spec
    asks for something else.
    """

    key: str
    origin: list[TrafficTarget] = []
    target: list[TrafficTarget] = []
    step: int = 0
    step_started: datetime | None = None
    result: RolloutResult = RolloutResult.PROGRESSING
    message: str = ""


class AdapterSummary(KubeModel):
    """The same, in the form of kubectl's columns: `v1=90 v2=10`, `2/2` and `step 1/3`."""

    traffic: str = ""
    versions: str = "0/0"
    rollout: str = ""


class LoraAdapterStatus(KubeModel):
    """What is. `traffic` is the split in effect: it follows spec once every version in it is resident.

    The gateway follows `traffic` and `mirror`, and serves every version in `versions`.
    """

    observed_generation: int = 0
    versions: Annotated[
        list[VersionStatus],
        Field(
            max_length=MOST_VERSIONS,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = []
    traffic: Annotated[
        list[TrafficTarget],
        Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["version"]}),
    ] = []
    mirror: Annotated[
        list[MirrorTarget],
        Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["version"]}),
    ] = []
    rollout: RolloutStatus | None = None
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
