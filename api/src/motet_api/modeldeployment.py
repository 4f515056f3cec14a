"""The `ModelDeployment` kind: a shared base model, the pods that serve it, and how they scale."""

from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from motet_api.dtypes import DType
from motet_api.names import API_VERSION, MODEL_DEPLOYMENT_KIND
from motet_api.objects import Conditions, KubeModel, ModelSource, ObjectMeta, cel

PASS_THROUGH: Final[JsonDict] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
"""Schema of an object that goes into the pod as it is; the API server validates it there."""
INT_OR_STRING: Final[JsonDict] = {"x-kubernetes-int-or-string": True}


class ModelSpec(KubeModel):
    """The base model."""

    source: ModelSource
    dtype: Annotated[DType, Field(description="Auto takes the type the checkpoint was saved in.")] = DType.AUTO
    max_model_len: Annotated[
        int | None,
        Field(
            ge=16,
            le=1_048_576,
            description="Most tokens of prompt and answer together; the model's own limit when absent.",
        ),
    ] = None


Quantity = Annotated[str, Field(pattern=r"^[1-9][0-9]*(Ki|Mi|Gi|Ti)$", max_length=20)]
"""Bytes in the Kubernetes form with a binary suffix: `16Gi`."""
_UNITS: Final = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40}


def quantity_bytes(quantity: str) -> int:
    """The bytes that a `Quantity` means."""
    return int(quantity[:-2]) << _UNITS[quantity[-2:]]


class EngineType(StrEnum):
    """What runs in the pods."""

    MOTET = "Motet"
    """Motet's own runtime: mixed-adapter batches, activated LoRA, panels, the LoRAX API."""
    VLLM = "VLLM"
    """vLLM, its adapters loaded by an agent beside it; the OpenAI API only. template.image must name its image."""


class EngineSpec(KubeModel):
    """The engine in each pod."""

    type: EngineType = EngineType.MOTET
    args: Annotated[
        list[Annotated[str, Field(max_length=1024)]],
        Field(max_length=64, description="Added to the engine's command line, after those that Motet sets."),
    ] = []
    kv_memory: Annotated[
        Quantity | None, Field(description="For keys and values; by default a quarter of the memory. Motet only.")
    ] = None
    max_batch_size: Annotated[
        int, Field(ge=1, le=1024, description="Requests that one pod runs at once; more wait at the gateway.")
    ] = 32


ClaimName = Annotated[str, Field(max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]


class From(StrEnum):
    """Which namespaces."""

    SAME = "Same"
    ALL = "All"
    SELECTOR = "Selector"


class NamespaceSelector(KubeModel):
    """Labels that a namespace must have, all of them."""

    match_labels: Annotated[dict[str, str], Field(min_length=1, max_length=16)]


class AllowedNamespaces(KubeModel):
    """From which namespaces LoraAdapters may name this ModelDeployment."""

    model_config = ConfigDict(
        populate_by_name=True,
        json_schema_extra={
            "x-kubernetes-validations": [
                cel(
                    "(has(self.from) && self.from == 'Selector') == has(self.selector)",
                    "allowedNamespaces.selector is required with from: Selector, and must not be given otherwise",
                    ".selector",
                )
            ]
        },
    )
    from_: Annotated[From, Field(alias="from")] = From.SAME
    selector: NamespaceSelector | None = None


class AdaptersSpec(KubeModel):
    """What adapters the pods take."""

    slots: Annotated[int, Field(ge=1, le=4096, description="Adapters that one pod computes with at once.")] = 64
    slot_memory: Annotated[
        Quantity | None,
        Field(description="For the slots; by default a tenth of the memory. Motet only."),
    ] = None
    host_memory: Annotated[Quantity, Field(description="Of one pod, for adapters that are in no slot.")] = "2Gi"
    disk: Annotated[Quantity, Field(description="Of one pod, for adapters that are not in memory.")] = "10Gi"
    allowed_namespaces: AllowedNamespaces = AllowedNamespaces()
    max_rank: Annotated[
        int, Field(ge=1, le=512, description="Adapters of a higher rank are refused with RankTooLarge.")
    ] = 64
    claim_names: Annotated[
        list[ClaimName],
        Field(
            max_length=32,
            json_schema_extra={"x-kubernetes-list-type": "set"},
            description="Claims of this namespace that pvc:// adapter sources name; mounted read-only.",
        ),
    ] = []


class ScaleDownSpec(KubeModel):
    """How slowly capacity is taken away."""

    hold_seconds: Annotated[
        int, Field(ge=0, le=3600, description="Seconds that demand must stay low before a pod goes.")
    ] = 90


class AutoscalingSpec(KubeModel):
    """Bounds and target of the HorizontalPodAutoscaler."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                cel(
                    "self.minReplicas <= self.maxReplicas",
                    "autoscaling.minReplicas must not exceed autoscaling.maxReplicas: lower the one or raise the other",
                    ".minReplicas",
                )
            ]
        }
    )
    min_replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    max_replicas: Annotated[int, Field(ge=1, le=1000)]
    target_queue_depth: Annotated[
        int,
        Field(ge=1, le=1_000_000, description="Requests, waiting and running, that one pod should carry on average."),
    ]
    scale_down: ScaleDownSpec = ScaleDownSpec()


class QueueSpec(KubeModel):
    """How the gateway holds requests that no pod can take yet."""

    max_wait_seconds: Annotated[
        int, Field(ge=1, le=3600, description="A request that waited longer is answered 503 with Retry-After.")
    ] = 90
    max_requests: Annotated[
        int, Field(ge=1, le=1_000_000, description="Requests beyond this many waiting are answered 429.")
    ] = 2000


class PrefetchImage(StrEnum):
    """Whether nodes pull the image before a pod needs it."""

    NONE = "None"
    ALL_NODES = "AllNodes"


class PrefetchWeights(StrEnum):
    """Where the base's weights lie before a pod needs them."""

    NONE = "None"
    """Each pod fetches them from the store when it starts."""
    NODE_LOCAL = "NodeLocal"
    """A folder of each node (hostPath), filled before; the namespace must allow hostPath volumes."""


class PrefetchSpec(KubeModel):
    """What the nodes that pods may run on hold ready."""

    image: PrefetchImage = PrefetchImage.NONE
    weights: PrefetchWeights = PrefetchWeights.NONE


class StartupSpec(KubeModel):
    """What makes pods start sooner."""

    prefetch: PrefetchSpec = PrefetchSpec()


PassThrough = Annotated[dict[str, Any], Field(json_schema_extra=PASS_THROUGH)]


class ResourcesSpec(KubeModel):
    """Requests, limits and resource claims of the runtime container, as in a pod."""

    claims: Annotated[list[PassThrough], Field(max_length=16)] = []
    requests: Annotated[
        dict[str, Annotated[int | str, Field(json_schema_extra=INT_OR_STRING)]], Field(max_length=32)
    ] = {}
    limits: Annotated[
        dict[str, Annotated[int | str, Field(json_schema_extra=INT_OR_STRING)]], Field(max_length=32)
    ] = {}


class PodTemplateSpec(KubeModel):
    """What of the pod is the user's. The rest (probes, ports, security, service account) is Motet's."""

    image: Annotated[
        str | None, Field(max_length=1024, description="Runtime image; the operator's default when absent.")
    ] = None
    image_pull_policy: Annotated[str | None, Field(pattern="^(Always|IfNotPresent|Never)$")] = None
    resources: ResourcesSpec = ResourcesSpec()
    node_selector: dict[str, str] = {}
    tolerations: Annotated[list[PassThrough], Field(max_length=32)] = []
    env: Annotated[list[PassThrough], Field(max_length=64)] = []
    volumes: Annotated[list[PassThrough], Field(max_length=32)] = []
    volume_mounts: Annotated[list[PassThrough], Field(max_length=32)] = []
    affinity: Annotated[dict[str, Any] | None, Field(json_schema_extra=PASS_THROUGH)] = None
    topology_spread_constraints: Annotated[
        list[PassThrough],
        Field(max_length=8, description="By default pods are spread over nodes where that is possible."),
    ] = []
    priority_class_name: Annotated[str | None, Field(max_length=253)] = None
    runtime_class_name: Annotated[str | None, Field(max_length=253)] = None
    resource_claims: Annotated[
        list[PassThrough], Field(max_length=16, description="Claims of the pod; resources.claims uses them.")
    ] = []
    image_pull_secrets: Annotated[list[PassThrough], Field(max_length=16)] = []
    labels: Annotated[dict[str, str], Field(max_length=32, description="Added to the pods' labels.")] = {}
    annotations: Annotated[dict[str, str], Field(max_length=32)] = {}


class ModelDeploymentSpec(KubeModel):
    """What the user wants."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                cel(
                    "!has(self.startup) || !has(self.startup.prefetch) || !has(self.startup.prefetch.weights)"
                    " || self.startup.prefetch.weights == 'None'"
                    " || self.model.source.uri.matches('^(hf|s3|oci|https?)://')",
                    "with startup.prefetch.weights NodeLocal the model.source must be one that is fetched: hf://, "
                    "s3://, oci:// or http(s)://",
                    ".startup.prefetch.weights",
                ),
                cel(
                    "!has(self.model.source.digest) || self.model.source.uri.matches('^(hf|s3|oci|https?)://')",
                    "model.source.digest must not be given with file:// and pvc://, whose files nobody checks before "
                    "the pods read them: drop it",
                    ".model.source.digest",
                ),
                cel(
                    "!has(self.engine) || !has(self.engine.type) || self.engine.type != 'VLLM'"
                    " || (has(self.template) && has(self.template.image))",
                    "template.image is required with engine.type VLLM: name an image of vLLM's OpenAI server",
                    ".template.image",
                ),
            ]
        }
    )
    model: ModelSpec
    engine: EngineSpec = EngineSpec()
    adapters: AdaptersSpec = AdaptersSpec()
    replicas: Annotated[
        int,
        Field(ge=0, le=1000, description="Pods wanted; written through /scale by the autoscaler when there is one."),
    ] = 1
    autoscaling: AutoscalingSpec | None = None
    queue: QueueSpec = QueueSpec()
    startup: StartupSpec = StartupSpec()
    template: PodTemplateSpec = PodTemplateSpec()


class AdapterCounts(KubeModel):
    """How many adapter versions the pods should hold, and do. `summary` is `resident/desired`, for kubectl's column."""

    desired: int = 0
    resident: int = 0
    failed: int = 0
    summary: str = "0/0"


class ModelSourceStatus(KubeModel):
    """The base that pods are made from: that of spec, or the one before it while the new one is being fetched.

    `uri` is the source as spec named it, with `@revision` if it gave one. `revision` and `digest` are what a base that
    is fetched turned out to be; both hold until spec names another source.
    """

    uri: str = ""
    revision: str = ""
    digest: str = ""


class PrefetchStatus(KubeModel):
    """Nodes that hold ready what spec.startup.prefetch asks for, of those that should."""

    ready: int = 0
    nodes: int = 0


class ModelSummary(KubeModel):
    """The same, in the form of kubectl's columns: `1/2`."""

    pods: str = "0/0"


class ModelDeploymentStatus(KubeModel):
    """What is."""

    source: ModelSourceStatus | None = None
    prefetch: PrefetchStatus | None = None
    observed_generation: int = 0
    replicas: int = 0
    ready_replicas: int = 0
    selector: str = ""
    adapters: AdapterCounts = AdapterCounts()
    summary: ModelSummary = ModelSummary()
    conditions: Conditions


class ModelDeployment(KubeModel):
    """A shared base model that serves many LoRA adapters."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                cel(
                    "self.metadata.name.size() <= 52 && !self.metadata.name.contains('.')",
                    "metadata.name must have at most 52 characters and no dot: its Service and pods are named after it",
                )
            ]
        }
    )
    api_version: str = API_VERSION
    kind: str = MODEL_DEPLOYMENT_KIND
    metadata: ObjectMeta
    spec: ModelDeploymentSpec
    status: ModelDeploymentStatus | None = None
