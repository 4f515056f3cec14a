"""The `ModelDeployment` kind: a shared base model, the pods that serve it, and how they scale."""

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


class EngineSpec(KubeModel):
    """The engine in each pod."""

    max_batch_size: Annotated[
        int, Field(ge=1, le=1024, description="Requests that one pod runs at once; more wait at the gateway.")
    ] = 32


ClaimName = Annotated[str, Field(max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]


class AdaptersSpec(KubeModel):
    """What adapters the pods take."""

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


class ResourcesSpec(KubeModel):
    """Requests and limits of the runtime container, as in a pod."""

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
    tolerations: Annotated[
        list[Annotated[dict[str, Any], Field(json_schema_extra=PASS_THROUGH)]], Field(max_length=32)
    ] = []
    env: Annotated[list[Annotated[dict[str, Any], Field(json_schema_extra=PASS_THROUGH)]], Field(max_length=64)] = []
    volumes: Annotated[
        list[Annotated[dict[str, Any], Field(json_schema_extra=PASS_THROUGH)]], Field(max_length=32)
    ] = []
    volume_mounts: Annotated[
        list[Annotated[dict[str, Any], Field(json_schema_extra=PASS_THROUGH)]], Field(max_length=32)
    ] = []


class ModelDeploymentSpec(KubeModel):
    """What the user wants."""

    model: ModelSpec
    engine: EngineSpec = EngineSpec()
    adapters: AdaptersSpec = AdaptersSpec()
    replicas: Annotated[
        int,
        Field(ge=0, le=1000, description="Pods wanted; written through /scale by the autoscaler when there is one."),
    ] = 1
    autoscaling: AutoscalingSpec | None = None
    queue: QueueSpec = QueueSpec()
    template: PodTemplateSpec = PodTemplateSpec()


class AdapterCounts(KubeModel):
    """How many adapter versions the pods should hold, and do. `summary` is `resident/desired`, for kubectl's column."""

    desired: int = 0
    resident: int = 0
    failed: int = 0
    summary: str = "0/0"


class ModelDeploymentStatus(KubeModel):
    """What is."""

    observed_generation: int = 0
    replicas: int = 0
    ready_replicas: int = 0
    selector: str = ""
    adapters: AdapterCounts = AdapterCounts()
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
