"""The pod that serves a model: what is Motet's (containers, volumes, security) around what is the user's. Pure."""

from typing import Any, Final

from motet_api.modeldeployment import EngineType, ModelDeploymentSpec, ModelSourceStatus, PodTemplateSpec
from motet_api.names import ADAPTERS_ROOT, CLAIM_MOUNT_ROOT, MODEL_LABEL
from motet_operator.installation import Installation
from motet_operator.models.base_files import BaseFiles, base_files
from motet_operator.models.containers import restricted_pod, tmp_mount, tmp_volume
from motet_operator.models.runtime_container import DRAIN_GRACE_SECONDS, DRAIN_TIMEOUT_SECONDS, make_runtime_container
from motet_operator.models.vllm_containers import SHM_VOLUME, make_vllm_containers

_TERMINATION_SECONDS: Final = DRAIN_GRACE_SECONDS + DRAIN_TIMEOUT_SECONDS + 10


def make_pod_template(
    name: str,
    labels: dict[str, str],
    spec: ModelDeploymentSpec,
    base: ModelSourceStatus,
    installation: Installation,
) -> dict[str, Any]:
    """The pod template of a ModelDeployment of this name, that serves this base."""
    template = spec.template
    files = base_files(spec, base, installation)
    claims = _claims(spec, files)
    pod: dict[str, Any] = {
        "serviceAccountName": name,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": _TERMINATION_SECONDS,
        "securityContext": restricted_pod(),
        "initContainers": list(files.init_containers),
        "containers": _containers(name, spec, files, claims, installation),
        "volumes": [*_volumes(spec, files, claims), *template.volumes],
        "topologySpreadConstraints": template.topology_spread_constraints or [_spread_over_nodes(name)],
        "affinity": template.affinity,
        "priorityClassName": template.priority_class_name,
        "resourceClaims": template.resource_claims,
        **placement(template),
    }
    metadata = {"labels": template.labels | labels, "annotations": template.annotations}
    return {"metadata": _given(metadata), "spec": _given(pod)}


def placement(template: PodTemplateSpec) -> dict[str, Any]:
    """What a pod needs in order to be on the same nodes, and to run the same image there."""
    return _given(
        {
            "nodeSelector": template.node_selector,
            "tolerations": template.tolerations,
            "runtimeClassName": template.runtime_class_name,
            "imagePullSecrets": template.image_pull_secrets,
        }
    )


def _containers(
    name: str, spec: ModelDeploymentSpec, files: BaseFiles, claims: dict[str, str], installation: Installation
) -> list[dict[str, Any]]:
    mounts = _mounts(files, claims)
    if spec.engine.type is EngineType.VLLM:
        engine, *others = make_vllm_containers(name, spec, files, mounts, installation)
    else:
        engine, others = make_runtime_container(name, spec, files, mounts, installation), []
    resources = spec.template.resources
    wanted = {"requests": resources.requests, "limits": resources.limits, "claims": resources.claims}
    return [engine | _given({"resources": _given(wanted)}), *others]


def _volumes(spec: ModelDeploymentSpec, files: BaseFiles, claims: dict[str, str]) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = [tmp_volume(), {"name": "motet-adapters", "emptyDir": {}}, *files.volumes]
    volumes += [
        {"name": volume, "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        for volume, claim in claims.items()
    ]
    if spec.engine.type is EngineType.VLLM:
        volumes.append({"name": SHM_VOLUME, "emptyDir": {"medium": "Memory"}})
    return volumes


def _mounts(files: BaseFiles, claims: dict[str, str]) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = [tmp_mount(), {"name": "motet-adapters", "mountPath": ADAPTERS_ROOT}, *files.mounts]
    return mounts + [
        {"name": volume, "mountPath": f"{CLAIM_MOUNT_ROOT}/{claim}", "readOnly": True}
        for volume, claim in claims.items()
    ]


def _claims(spec: ModelDeploymentSpec, files: BaseFiles) -> dict[str, str]:
    """Claims to mount, by volume name: the base model's, and those that adapters may come from."""
    names = sorted({*spec.adapters.claim_names, files.claim} - {""})
    return {f"motet-claim-{index}": claim for index, claim in enumerate(names)}


def _spread_over_nodes(name: str) -> dict[str, Any]:
    """A node that fails takes as few pods with it as can be; where there is one node only, all are there."""
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {MODEL_LABEL: name}},
    }


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    """Only what has a value: what is not said is left to Kubernetes."""
    return {key: value for key, value in fields.items() if value not in (None, [], {})}
