"""Kubernetes objects as the API server sends them."""

from collections.abc import Iterable, Mapping
from typing import Any

Object = dict[str, Any]


def metadata(name: str, namespace: str, version: int) -> Object:
    return {
        "name": name,
        "namespace": namespace,
        "uid": f"uid-{name}",
        "resourceVersion": str(version),
        "creationTimestamp": "2026-01-02T03:04:05Z",
        "managedFields": [{"manager": "kubectl"}],
    }


def model_deployment(name: str = "tiny", namespace: str = "default", version: int = 1, **queue: int) -> Object:
    return {
        "apiVersion": "motet.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": metadata(name, namespace, version),
        "spec": {"model": {"source": {"uri": "file:///model"}}, "queue": queue},
    }


def lora_adapter(
    name: str = "churn",
    namespace: str = "default",
    version: int = 1,
    versions: Iterable[str] = ("v1",),
    traffic: Mapping[str, int] | None = None,
    known: Iterable[Object] = (),
) -> Object:
    """`traffic` and `known` (versions) are those of status; spec's traffic is another, which nobody should follow."""
    found: Object = {
        "apiVersion": "motet.dev/v1alpha1",
        "kind": "LoraAdapter",
        "metadata": metadata(name, namespace, version),
        "spec": {
            "modelRef": {"name": "tiny"},
            "versions": [{"name": each, "source": {"uri": f"file:///{each}"}} for each in versions],
            "traffic": [{"version": each, "weight": 777} for each in versions],
        },
    }
    if traffic is not None:
        shares = [{"version": each, "weight": weight} for each, weight in traffic.items()]
        found["status"] = {"observedGeneration": 1, "traffic": shares, "versions": [*known], "conditions": []}
    return found


def version_status(name: str = "v1", uri: str | None = None, digest: str | None = None, **more: Any) -> Object:
    """What status says of a version; from the uri that spec has for it unless another is given."""
    source = {"uri": uri or f"file:///{name}"}
    return {"name": name, "source": source, "conditions": []} | ({"digest": digest} if digest else {}) | more


def endpoint_slice(
    pods: Mapping[str, bool],
    name: str = "tiny-abc",
    namespace: str = "default",
    version: int = 1,
    model: str = "tiny",
    family: str = "IPv4",
) -> Object:
    """`pods` says of each whether it is ready."""
    prefix = "10.0.0." if family == "IPv4" else "fd00::"
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata(name, namespace, version)
        | {"labels": {"motet.dev/model-deployment": model, "kubernetes.io/service-name": model}},
        "addressType": family,
        "ports": [
            {"name": "report", "port": 8124, "protocol": "TCP"},
            {"name": "http", "port": 8123, "protocol": "TCP"},
        ],
        "endpoints": [
            {
                "addresses": [f"{prefix}{number}"],
                "conditions": {"ready": ready, "serving": ready, "terminating": False},
                "nodeName": "node",
                "targetRef": {"kind": "Pod", "name": pod, "namespace": namespace, "uid": f"uid-{pod}"},
            }
            for number, (pod, ready) in enumerate(pods.items(), start=1)
        ],
    }
