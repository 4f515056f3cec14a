"""The objects that the end-to-end tests apply, and the volumes that the models and adapters lie in."""

from pathlib import Path
from typing import Any

from motet_api.names import API_VERSION

Manifest = dict[str, Any]
CLAIM = "material"


def volume(namespace: str, folder: Path) -> list[Manifest]:
    """A folder of the host as a read-only claim of the namespace."""
    size = {"storage": "1Gi"}
    name = f"{namespace}-{CLAIM}"
    persistent = {
        "capacity": size,
        "accessModes": ["ReadOnlyMany"],
        "persistentVolumeReclaimPolicy": "Retain",
        "storageClassName": "",
        "claimRef": {"namespace": namespace, "name": CLAIM},
        "hostPath": {"path": str(folder), "type": "Directory"},
    }
    claim = {
        "accessModes": ["ReadOnlyMany"],
        "storageClassName": "",
        "volumeName": name,
        "resources": {"requests": size},
    }
    return [
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": persistent},
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": CLAIM, "namespace": namespace},
            "spec": claim,
        },
    ]


def model_deployment(
    namespace: str, name: str, max_batch_size: int = 4, autoscaling: Manifest | None = None, **spec: Any
) -> Manifest:
    """A ModelDeployment of the tiny model in the claim."""
    body: Manifest = {
        "model": {"source": {"uri": f"pvc://{CLAIM}/llama"}, "dtype": "Float32"},
        "engine": {"maxBatchSize": max_batch_size},
        "adapters": {"maxRank": 16, "claimNames": [CLAIM]},
        "queue": {"maxWaitSeconds": 60},
        "template": {
            "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}},
        },
    }
    if autoscaling:
        body["autoscaling"] = autoscaling
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {**body, **spec},
    }


def source(path: str, **more: Any) -> Manifest:
    """A folder of the claim as an adapter's source."""
    return {"uri": f"pvc://{CLAIM}/{path}", **more}


def adapter(
    namespace: str,
    name: str,
    model: str,
    versions: dict[str, Manifest],
    traffic: dict[str, int] | None = None,
    **more: Any,
) -> Manifest:
    """A LoraAdapter with sources by version."""
    spec: Manifest = more | {
        "modelRef": {"name": model},
        "versions": [{"name": version, "source": where} for version, where in versions.items()],
    }
    if traffic:
        spec["traffic"] = [{"version": version, "weight": weight} for version, weight in traffic.items()]
    return {
        "apiVersion": API_VERSION,
        "kind": "LoraAdapter",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }
