"""The container of Motet's own engine. Pure."""

from typing import Any, Final

from motet_api.modeldeployment import ModelDeploymentSpec, quantity_bytes
from motet_api.names import (
    ADAPTERS_ROOT,
    ADMIN_PORT,
    ADMIN_PORT_NAME,
    LIVE_PATH,
    READY_PATH,
    RUNTIME_CONTAINER,
    SERVING_PORT,
    SERVING_PORT_NAME,
)
from motet_operator.installation import Installation
from motet_operator.models.base_files import BaseFiles
from motet_operator.models.containers import flags, pod_name, port, probe, restricted

DRAIN_GRACE_SECONDS: Final = 5
"""For so long a pod that is told to stop still takes requests: until then some gateway may not know yet."""
DRAIN_TIMEOUT_SECONDS: Final = 60


def make_runtime_container(
    name: str, spec: ModelDeploymentSpec, files: BaseFiles, mounts: list[dict[str, Any]], installation: Installation
) -> dict[str, Any]:
    """The container, without the user's resources. `mounts` are Motet's own."""
    return {
        "name": RUNTIME_CONTAINER,
        "image": spec.template.image or installation.runtime.image,
        "imagePullPolicy": spec.template.image_pull_policy or installation.runtime.pull_policy,
        "args": ["serve", *_options(name, spec, files), *spec.engine.args],
        "env": [pod_name(), *spec.template.env],
        "ports": [port(SERVING_PORT_NAME, SERVING_PORT), port(ADMIN_PORT_NAME, ADMIN_PORT)],
        # Does the process answer yet? Is its event loop alive? Is it able to serve all that it was told to?
        "startupProbe": probe(LIVE_PATH, period=1, timeout=2, failures=120),
        "livenessProbe": probe(LIVE_PATH, period=10, timeout=5, failures=6),
        "readinessProbe": probe(READY_PATH, period=1, timeout=2, failures=3),
        "securityContext": restricted(),
        "volumeMounts": [*mounts, *spec.template.volume_mounts],
    }


def _options(name: str, spec: ModelDeploymentSpec, files: BaseFiles) -> list[str]:
    adapters = spec.adapters
    return flags(
        {
            "model": files.uri,
            "model-name": name,
            "dtype": spec.model.dtype.value,
            "max-batch-size": spec.engine.max_batch_size,
            "max-model-len": spec.model.max_model_len,
            "kv-memory": _mebibytes(spec.engine.kv_memory),
            "max-rank": adapters.max_rank,
            "adapter-slots": adapters.slots,
            "adapter-memory": _mebibytes(adapters.slot_memory),
            "adapter-host-memory": _mebibytes(adapters.host_memory),
            "adapter-disk": _mebibytes(adapters.disk),
            "adapter-cache": ADAPTERS_ROOT,
            "drain-grace-seconds": DRAIN_GRACE_SECONDS,
            "drain-timeout-seconds": DRAIN_TIMEOUT_SECONDS,
        }
    )


def _mebibytes(quantity: str | None) -> int | None:
    """Whole MiB, at least one, of a quantity that is given."""
    return None if quantity is None else max(1, quantity_bytes(quantity) >> 20)
