"""The runtime pod: what is Motet's (command line, ports, probes, security) around what is the user's. Pure."""

import re
from dataclasses import dataclass
from typing import Any, Final

from motet_api.modeldeployment import ModelDeploymentSpec, PodTemplateSpec
from motet_api.names import (
    ADMIN_PORT,
    ADMIN_PORT_NAME,
    CLAIM_MOUNT_ROOT,
    LIVE_PATH,
    READY_PATH,
    RUNTIME_CONTAINER,
    SERVING_PORT,
    SERVING_PORT_NAME,
)

_USER: Final = 65532
_DRAIN_GRACE_SECONDS: Final = 5
"""For so long a pod that is told to stop still takes requests: until then some gateway may not know yet."""
_DRAIN_TIMEOUT_SECONDS: Final = 60
_TERMINATION_SECONDS: Final = _DRAIN_GRACE_SECONDS + _DRAIN_TIMEOUT_SECONDS + 10


@dataclass(frozen=True, slots=True)
class RuntimeImage:
    """The image of runtime pods whose ModelDeployment names none."""

    image: str
    pull_policy: str


def make_pod_template(
    name: str, labels: dict[str, str], spec: ModelDeploymentSpec, image: RuntimeImage
) -> dict[str, Any]:
    """The pod template of a ModelDeployment of this name."""
    template = spec.template
    claims = _claims(spec)
    volumes: list[dict[str, Any]] = [{"name": "motet-tmp", "emptyDir": {}}]
    volumes += [
        {"name": volume, "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        for volume, claim in claims.items()
    ]
    pod: dict[str, Any] = {
        "serviceAccountName": name,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": _TERMINATION_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(name, spec, image, claims)],
        "volumes": [*volumes, *template.volumes],
    }
    optional = {"nodeSelector": template.node_selector, "tolerations": template.tolerations}
    return {"metadata": {"labels": labels}, "spec": pod | {key: value for key, value in optional.items() if value}}


def _container(name: str, spec: ModelDeploymentSpec, image: RuntimeImage, claims: dict[str, str]) -> dict[str, Any]:
    template = spec.template
    mounts: list[dict[str, Any]] = [{"name": "motet-tmp", "mountPath": "/tmp"}]  # noqa: S108 - a path in the pod, whose root is read-only
    mounts += [
        {"name": volume, "mountPath": f"{CLAIM_MOUNT_ROOT}/{claim}", "readOnly": True}
        for volume, claim in claims.items()
    ]
    pod_name = {"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}
    container: dict[str, Any] = {
        "name": RUNTIME_CONTAINER,
        "image": template.image or image.image,
        "imagePullPolicy": template.image_pull_policy or image.pull_policy,
        "args": _arguments(name, spec),
        "env": [pod_name, *template.env],
        "ports": [
            {"name": SERVING_PORT_NAME, "containerPort": SERVING_PORT, "protocol": "TCP"},
            {"name": ADMIN_PORT_NAME, "containerPort": ADMIN_PORT, "protocol": "TCP"},
        ],
        # Does the process answer yet? Is its event loop alive? Is it able to serve all that it was told to?
        "startupProbe": _probe(LIVE_PATH, period=1, timeout=2, failures=120),
        "livenessProbe": _probe(LIVE_PATH, period=10, timeout=5, failures=6),
        "readinessProbe": _probe(READY_PATH, period=1, timeout=2, failures=3),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [*mounts, *template.volume_mounts],
    }
    resources = _resources(template)
    return container | ({"resources": resources} if resources else {})


def _arguments(name: str, spec: ModelDeploymentSpec) -> list[str]:
    options = {
        "model": spec.model.source.uri,
        "model-name": name,
        "dtype": spec.model.dtype.value,
        "max-batch-size": spec.engine.max_batch_size,
        "max-rank": spec.adapters.max_rank,
        "drain-grace-seconds": _DRAIN_GRACE_SECONDS,
        "drain-timeout-seconds": _DRAIN_TIMEOUT_SECONDS,
    }
    if spec.model.max_model_len is not None:
        options["max-model-len"] = spec.model.max_model_len
    return ["serve", *(f"--{option}={value}" for option, value in options.items())]


def _probe(path: str, period: int, timeout: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": ADMIN_PORT_NAME},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
    }


def _resources(template: PodTemplateSpec) -> dict[str, Any]:
    parts = {"requests": template.resources.requests, "limits": template.resources.limits}
    return {key: value for key, value in parts.items() if value}


def _claims(spec: ModelDeploymentSpec) -> dict[str, str]:
    """Claims to mount, by volume name: the base model's, and those that adapters may come from."""
    names = set(spec.adapters.claim_names)
    found = re.match(r"pvc://([^/]+)/", spec.model.source.uri)
    if found:
        names.add(found[1])
    return {f"motet-claim-{index}": claim for index, claim in enumerate(sorted(names))}
