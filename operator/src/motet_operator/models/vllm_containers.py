"""The two containers of engine.type VLLM: vLLM's OpenAI server, and the agent that loads adapters into it. Pure.

The operator and the readiness probe ask the agent; requests go to vLLM. What is on disk of adapters is shared by both.
"""

from typing import Any, Final

from motet_api.dtypes import DType
from motet_api.modeldeployment import ModelDeploymentSpec, quantity_bytes
from motet_api.names import (
    ADAPTERS_ROOT,
    ADMIN_PORT,
    ADMIN_PORT_NAME,
    AGENT_CONTAINER,
    LIVE_PATH,
    READY_PATH,
    REPORT_PORT,
    REPORT_PORT_NAME,
    SERVING_PORT,
    SERVING_PORT_NAME,
    VLLM_CONTAINER,
)
from motet_operator.installation import Installation
from motet_operator.models.base_files import BaseFiles
from motet_operator.models.containers import flags, pod_name, port, probe, restricted
from motet_operator.models.runtime_container import DRAIN_GRACE_SECONDS, DRAIN_TIMEOUT_SECONDS

SHM_VOLUME: Final = "motet-shm"
_RANKS: Final = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as its largest rank."""
_HOST_BYTES_EACH: Final = 64 << 20
"""vLLM counts the adapters that it keeps in host memory. One of rank 16 on a model of 8B is about so large."""
_START_SECONDS: Final = 3600
_DTYPES: Final = {
    DType.AUTO: "auto",
    DType.FLOAT32: "float32",
    DType.BFLOAT16: "bfloat16",
    DType.FLOAT16: "float16",
}
_DRAIN: Final = f"""
import re, time, urllib.request
time.sleep({DRAIN_GRACE_SECONDS})
end = time.monotonic() + {DRAIN_TIMEOUT_SECONDS}
while time.monotonic() < end:
    text = urllib.request.urlopen("http://127.0.0.1:{SERVING_PORT}/metrics", timeout=5).read().decode()
    if not sum(float(n) for n in re.findall(r"(?m)^vllm:num_requests_(?:running|waiting)(?:{{.*}})? (\\S+)$", text)):
        break
    time.sleep(0.5)
"""
"""vLLM cuts off what is in flight when it is told to stop, so it is told when nothing is."""


def make_vllm_containers(
    name: str, spec: ModelDeploymentSpec, files: BaseFiles, mounts: list[dict[str, Any]], installation: Installation
) -> list[dict[str, Any]]:
    """vLLM first: the user's resources, env and mounts are its. `mounts` are Motet's own, needed by both."""
    return [_vllm(name, spec, files, mounts), _agent(name, spec, files, mounts, installation)]


def _vllm(name: str, spec: ModelDeploymentSpec, files: BaseFiles, mounts: list[dict[str, Any]]) -> dict[str, Any]:
    template = spec.template
    # Its caches go below HOME, and some libraries ask who they run as: the image knows no user of our number.
    env = {"HOME": "/tmp", "USER": "motet", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}  # noqa: S108
    switches = [{"name": key, "value": value} for key, value in env.items()]
    return {
        "name": VLLM_CONTAINER,
        "image": template.image,
        "imagePullPolicy": template.image_pull_policy or "IfNotPresent",
        "command": ["vllm", "serve"],
        "args": [files.folder, *_options(name, spec), *spec.engine.args],
        "env": [*switches, {"name": "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "value": "True"}, *template.env],
        "ports": [port(SERVING_PORT_NAME, SERVING_PORT)],
        "startupProbe": probe("/health", 5, 4, _START_SECONDS // 5, SERVING_PORT_NAME),
        "livenessProbe": probe("/health", 10, 9, 12, SERVING_PORT_NAME),
        "lifecycle": {"preStop": {"exec": {"command": ["python3", "-c", _DRAIN]}}},
        "securityContext": restricted(),
        "volumeMounts": [*mounts, {"name": SHM_VOLUME, "mountPath": "/dev/shm"}, *template.volume_mounts],  # noqa: S108
    }


def _options(name: str, spec: ModelDeploymentSpec) -> list[str]:
    adapters = spec.adapters
    options = {
        "max-lora-rank": next(rank for rank in _RANKS if rank >= adapters.max_rank),
        "max-loras": adapters.slots,
        "max-cpu-loras": max(adapters.slots, quantity_bytes(adapters.host_memory) // _HOST_BYTES_EACH),
        "served-model-name": name,
        "host": "0.0.0.0",  # noqa: S104 - a pod's only purpose is to be reached
        "port": SERVING_PORT,
        "dtype": _DTYPES[spec.model.dtype],
        "max-num-seqs": spec.engine.max_batch_size,
        "max-model-len": spec.model.max_model_len,
    }
    return ["--enable-lora", *flags(options)]


def _agent(
    name: str, spec: ModelDeploymentSpec, files: BaseFiles, mounts: list[dict[str, Any]], installation: Installation
) -> dict[str, Any]:
    options = {
        "engine-url": f"http://127.0.0.1:{SERVING_PORT}",
        "admin-port": ADMIN_PORT,
        "report-port": REPORT_PORT,
        "model-name": name,
        "max-batch-size": spec.engine.max_batch_size,
        "max-rank": spec.adapters.max_rank,
        "adapter-cache": ADAPTERS_ROOT,
        "drain-grace-seconds": DRAIN_GRACE_SECONDS,
    }
    if files.claim or files.mounts:
        # A base in vLLM's own image is not to be seen from here.
        options["model"] = f"file://{files.folder}"
    return {
        "name": AGENT_CONTAINER,
        "image": installation.runtime.image,
        "imagePullPolicy": installation.runtime.pull_policy,
        "args": ["agent", *flags(options)],
        "env": [pod_name()],
        "ports": [port(ADMIN_PORT_NAME, ADMIN_PORT), port(REPORT_PORT_NAME, REPORT_PORT)],
        "startupProbe": probe(LIVE_PATH, period=1, timeout=2, failures=120),
        "livenessProbe": probe(LIVE_PATH, period=10, timeout=5, failures=6),
        "readinessProbe": probe(READY_PATH, period=1, timeout=2, failures=3),
        "securityContext": restricted(),
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        "volumeMounts": mounts,
    }
