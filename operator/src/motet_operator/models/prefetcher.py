"""What the DaemonSet of a ModelDeployment runs: nothing, on every node that its pods may run on. Pure.

Its pods make the kubelet pull the images, and their init container fills the node's folder with the base; then they
idle, so that the images stay in use and a new node is filled when it joins.
"""

from typing import Any, Final

from motet_api.modeldeployment import EngineType, ModelDeploymentSpec, ModelSourceStatus, PrefetchImage, PrefetchWeights
from motet_api.names import PREFETCH_LABEL
from motet_operator.installation import Installation
from motet_operator.models.base_files import base_files
from motet_operator.models.containers import restricted, restricted_pod, tmp_mount, tmp_volume
from motet_operator.models.pod_template import placement

_IDLE: Final = "import signal; signal.signal(signal.SIGTERM, lambda *_: exit()); signal.pause()"
"""Both images have a Python; as process 1 it would not end by SIGTERM of itself."""


def prefetches(spec: ModelDeploymentSpec) -> bool:
    """Whether there is anything to prefetch."""
    wanted = spec.startup.prefetch
    return wanted.image is not PrefetchImage.NONE or wanted.weights is not PrefetchWeights.NONE


def make_prefetch_template(
    labels: dict[str, str], spec: ModelDeploymentSpec, base: ModelSourceStatus, installation: Installation
) -> dict[str, Any]:
    """The pod template of the DaemonSet. The pods carry no model label: they would be taken for those that serve."""
    weights = spec.startup.prefetch.weights is PrefetchWeights.NODE_LOCAL
    files = base_files(spec, base, installation)
    pod = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 5,
        "securityContext": restricted_pod(),
        "containers": [_idling(index, *image) for index, image in enumerate(_images(spec, installation))],
        "volumes": [tmp_volume()],
        **placement(spec.template),
    }
    if weights:
        pod["initContainers"] = list(files.init_containers)
        pod["volumes"] = [tmp_volume(), *files.volumes]
    nodes = (spec.template.affinity or {}).get("nodeAffinity")
    if nodes:
        pod["affinity"] = {"nodeAffinity": nodes}
    return {"metadata": {"labels": labels}, "spec": pod}


def prefetch_labels(name: str) -> dict[str, str]:
    """By which the DaemonSet knows its pods."""
    return {PREFETCH_LABEL: name}


def _images(spec: ModelDeploymentSpec, installation: Installation) -> list[tuple[str, str]]:
    """Images that pods run, each with its pull policy."""
    runtime = installation.runtime
    own = (runtime.image, runtime.pull_policy)
    if spec.startup.prefetch.image is PrefetchImage.NONE:
        return [own]
    engine = (spec.template.image or runtime.image, spec.template.image_pull_policy or runtime.pull_policy)
    return list(dict.fromkeys([engine, own] if spec.engine.type is EngineType.VLLM else [engine]))


def _idling(index: int, image: str, pull_policy: str) -> dict[str, Any]:
    return {
        "name": f"idle-{index}",
        "image": image,
        "imagePullPolicy": pull_policy,
        "command": ["python3", "-c", _IDLE],
        "resources": {"requests": {"cpu": "1m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
        "securityContext": restricted(),
        "volumeMounts": [tmp_mount()],
    }
