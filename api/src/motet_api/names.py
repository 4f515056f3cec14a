"""Every name that two parts, or a part and its users, must agree on: one source for each."""

from typing import Final

GROUP: Final = "motet.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

MODEL_DEPLOYMENT_KIND: Final = "ModelDeployment"
MODEL_DEPLOYMENT_PLURAL: Final = "modeldeployments"
LORA_ADAPTER_KIND: Final = "LoraAdapter"
LORA_ADAPTER_PLURAL: Final = "loraadapters"
MODEL_DEPLOYMENT_SHORT: Final = "mdep"
LORA_ADAPTER_SHORT: Final = "lora"
CATEGORY: Final = "motet"
"""`kubectl get motet` lists every kind of the group."""

FIELD_MANAGER: Final = "motet-operator"
"""The one field manager under which the operator applies children and status."""

# Labels. The model label is on the Deployment, its pods and its Service; the EndpointSlice controller copies a
# Service's labels to its slices, which is how the gateway finds the pods of a ModelDeployment.
MODEL_LABEL: Final = f"{GROUP}/model-deployment"
PREFETCH_LABEL: Final = f"{GROUP}/prefetch"
"""On the pods of a ModelDeployment's DaemonSet, which carry no model label: they do not serve."""
CREDENTIALS_LABEL: Final = f"{GROUP}/source-credentials"
"""On a Secret, with the value "true": the adapter store may send what is in it to the sources that name it."""
MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
NAME_LABEL: Final = "app.kubernetes.io/name"
COMPONENT_LABEL: Final = "app.kubernetes.io/component"
MANAGED_BY: Final = "motet-operator"

# The runtime pod.
RUNTIME_CONTAINER: Final = "runtime"
AGENT_CONTAINER: Final = "agent"
"""Beside VLLM_CONTAINER: it answers the operator and the probes in the runtime container's place."""
VLLM_CONTAINER: Final = "vllm"
FETCH_CONTAINER: Final = "fetch"
FETCHED_ARTIFACT: Final = "--artifact"
"""The option of FETCH_CONTAINER's program that names what it fetches by digest."""
SERVING_PORT_NAME: Final = "http"
SERVING_PORT: Final = 8000
ADMIN_PORT_NAME: Final = "admin"
ADMIN_PORT: Final = 8001
REPORT_PORT_NAME: Final = "report"
REPORT_PORT: Final = 8004
"""Of the agent beside vLLM: what the pod holds, for the gateway, as the serving port is the engine's own."""
STORE_PORT: Final = 8002
"""The adapter store's reads: manifests and blobs, for runtime pods."""
STORE_ADMIN_PORT: Final = 8003
"""The adapter store's writes and questions, for the operator."""
CLAIM_MOUNT_ROOT: Final = "/mnt/motet/claims"
"""Persistent volume claims named by `pvc://CLAIM/path` are mounted, read-only, at CLAIM_MOUNT_ROOT/CLAIM."""
MODELS_ROOT: Final = "/var/lib/motet/models"
"""Bases that are fetched: MODELS_ROOT/HEX of their digest, in the pod and, where they are shared, on the node."""
ADAPTERS_ROOT: Final = "/var/lib/motet/adapters"
"""The adapters that a pod keeps on its disk."""

# Paths of our own API.
ADAPTERS_PATH: Final = "/motet/v1/adapters"
BASE_PATH: Final = "/motet/v1/base"
DEMAND_PATH: Final = "/motet/v1/demand"
OUTCOMES_PATH: Final = "/motet/v1/outcomes"
ARTIFACTS_PATH: Final = "/motet/v1/artifacts"
BLOBS_PATH: Final = "/motet/v1/blobs"
BASES_PATH: Final = "/motet/v1/bases"
REFERENCES_PATH: Final = "/motet/v1/references"
DRAIN_PATH: Final = "/motet/v1/drain"
LIVE_PATH: Final = "/livez"
READY_PATH: Final = "/readyz"

# HTTP headers.
MODEL_HEADER: Final = "x-motet-model"
"""Request: which ModelDeployment (`name` or `namespace/name`) answers as base; response: which one did."""
USER_HEADER: Final = "x-motet-user"
"""Request: the key of the sticky split; the same user gets the same version from every gateway replica."""
ADAPTER_HEADER: Final = "x-motet-adapter"
ADAPTER_VERSION_HEADER: Final = "x-motet-adapter-version"
POD_HEADER: Final = "x-motet-pod"
MIRROR_HEADER: Final = "x-motet-mirror"
"""Request, gateway to pod: `1` on a copy whose answer is compared and thrown away."""
REQUEST_ID_HEADER: Final = "x-request-id"

# The metric that the HorizontalPodAutoscaler reads as an Object metric of the ModelDeployment.
QUEUE_DEPTH_METRIC: Final = "motet_queue_depth"
CUSTOM_METRICS_GROUP: Final = "custom.metrics.k8s.io"

BASE_MODEL_ALIAS: Final = "__base_model__"
"""LoRAX's name for "no adapter"; accepted wherever an adapter id is."""
