"""Where the base model's files are in a pod, and how they come there: volumes, mounts, a fetching container. Pure.

source                          files                                   who puts them there
------                          -----                                   -------------------
file:///path                    /path                                   the image
pvc://CLAIM/path                the claim, mounted read-only            the user
fetched                         an emptyDir of the pod                  its init container, from the store
fetched, weights NodeLocal      a folder of the node (hostPath)         the prefetching DaemonSet, or the first pod
"""

import re
from dataclasses import dataclass
from typing import Any, Final

from motet_api.modeldeployment import ModelDeploymentSpec, ModelSourceStatus, PrefetchWeights
from motet_api.names import CLAIM_MOUNT_ROOT, FETCH_CONTAINER, FETCHED_ARTIFACT, MODELS_ROOT
from motet_operator.installation import Installation
from motet_operator.models.containers import restricted, tmp_mount

_VOLUME: Final = "motet-models"
_ROOT: Final = 0


@dataclass(frozen=True, slots=True)
class BaseFiles:
    """What a pod needs for its base. `folder` is its path in the engine's container; `claim` is empty without one."""

    folder: str
    uri: str
    claim: str = ""
    volumes: tuple[dict[str, Any], ...] = ()
    mounts: tuple[dict[str, Any], ...] = ()
    init_containers: tuple[dict[str, Any], ...] = ()


def base_files(spec: ModelDeploymentSpec, base: ModelSourceStatus, installation: Installation) -> BaseFiles:
    """The files of the base that pods are to serve."""
    if not base.digest:
        claim = re.match(r"pvc://([^/]+)/(.*)", base.uri)
        if claim is None:
            return BaseFiles(base.uri.removeprefix("file://"), base.uri)
        return BaseFiles(f"{CLAIM_MOUNT_ROOT}/{claim[1]}/{claim[2]}", base.uri, claim[1])
    folder = f"{MODELS_ROOT}/{base.digest.removeprefix('sha256:')}"
    return BaseFiles(
        folder,
        f"file://{folder}",
        volumes=(_volume(spec),),
        mounts=({"name": _VOLUME, "mountPath": MODELS_ROOT, "readOnly": True},),
        init_containers=(_fetching(spec, base.digest, folder, installation),),
    )


def _volume(spec: ModelDeploymentSpec) -> dict[str, Any]:
    if _node_local(spec):
        return {"name": _VOLUME, "hostPath": {"path": MODELS_ROOT, "type": "DirectoryOrCreate"}}
    return {"name": _VOLUME, "emptyDir": {}}


def _fetching(spec: ModelDeploymentSpec, digest: str, folder: str, installation: Installation) -> dict[str, Any]:
    """Fetches what is not there yet, checks what is.

    The kubelet makes a hostPath as root's own, and no group that could be given to the pod may write to it.
    """
    user = {"runAsNonRoot": False, "runAsUser": _ROOT, "runAsGroup": _ROOT} if _node_local(spec) else {}
    return {
        "name": FETCH_CONTAINER,
        "image": installation.runtime.image,
        "imagePullPolicy": installation.runtime.pull_policy,
        "args": ["fetch", f"--store={installation.store}", f"{FETCHED_ARTIFACT}={digest}", f"--to={folder}"],
        "securityContext": restricted() | user,
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        "volumeMounts": [{"name": _VOLUME, "mountPath": MODELS_ROOT}, tmp_mount()],
    }


def _node_local(spec: ModelDeploymentSpec) -> bool:
    return spec.startup.prefetch.weights is PrefetchWeights.NODE_LOCAL
