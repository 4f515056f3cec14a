"""The objects that a ModelDeployment becomes: one pure `make_*` function per kind.

What is not said here is left to Kubernetes and to others: only the fields below are ours under server-side apply.
"""

import hashlib
import json
from typing import Any, Final

from motet_api.modeldeployment import AutoscalingSpec, ModelDeploymentSpec
from motet_api.names import (
    API_VERSION,
    COMPONENT_LABEL,
    MANAGED_BY,
    MANAGED_BY_LABEL,
    MODEL_DEPLOYMENT_KIND,
    MODEL_LABEL,
    NAME_LABEL,
    QUEUE_DEPTH_METRIC,
    SERVING_PORT,
    SERVING_PORT_NAME,
)
from motet_api.objects import ObjectMeta
from motet_operator.keys import RESOURCES, Kind
from motet_operator.pod_template import RuntimeImage, make_pod_template

Manifest = dict[str, Any]

_KEPT_REVISIONS: Final = 3


def make_children(meta: ObjectMeta, spec: ModelDeploymentSpec, image: RuntimeImage) -> dict[Kind, Manifest]:
    """Every child that should exist, in the order in which they are needed."""
    made = {
        Kind.SERVICE_ACCOUNT: make_service_account(meta),
        Kind.SERVICE: make_service(meta),
        Kind.DEPLOYMENT: make_deployment(meta, spec, image),
    }
    if spec.autoscaling is not None:
        made[Kind.AUTOSCALER] = make_autoscaler(meta, spec.autoscaling)
    return made


def make_service_account(meta: ObjectMeta) -> Manifest:
    """An identity of the pods' own, with no rights and no token in the pods."""
    return _object(Kind.SERVICE_ACCOUNT, meta) | {"automountServiceAccountToken": False}


def make_service(meta: ObjectMeta) -> Manifest:
    """Gives the pods EndpointSlices, by whose model label (taken over from the Service) the gateway finds them."""
    port = {"name": SERVING_PORT_NAME, "port": SERVING_PORT, "protocol": "TCP", "targetPort": SERVING_PORT_NAME}
    return _object(Kind.SERVICE, meta) | {"spec": {"selector": {MODEL_LABEL: meta.name}, "ports": [port]}}


def make_deployment(meta: ObjectMeta, spec: ModelDeploymentSpec, image: RuntimeImage) -> Manifest:
    """The runtime pods. A new pod is ready, with its adapters, before an old one goes."""
    return _object(Kind.DEPLOYMENT, meta) | {
        "spec": {
            "replicas": spec.replicas,
            "revisionHistoryLimit": _KEPT_REVISIONS,
            "selector": {"matchLabels": {MODEL_LABEL: meta.name}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": make_pod_template(meta.name, _labels(meta), spec, image),
        }
    }


def make_autoscaler(meta: ObjectMeta, autoscaling: AutoscalingSpec) -> Manifest:
    """Scales the ModelDeployment (not its Deployment) by the queue depth.

    AverageValue and not Value: its proposal is total / target, whatever number of pods is ready yet.
    """
    target = {"apiVersion": API_VERSION, "kind": MODEL_DEPLOYMENT_KIND, "name": meta.name}
    metric = {
        "describedObject": target,
        "metric": {"name": QUEUE_DEPTH_METRIC},
        "target": {"type": "AverageValue", "averageValue": str(autoscaling.target_queue_depth)},
    }
    return _object(Kind.AUTOSCALER, meta) | {
        "spec": {
            "scaleTargetRef": target,
            "minReplicas": autoscaling.min_replicas,
            "maxReplicas": autoscaling.max_replicas,
            "metrics": [{"type": "Object", "object": metric}],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": autoscaling.scale_down.hold_seconds}},
        }
    }


def digest(manifest: Manifest) -> str:
    """Tells two manifests apart."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:16]


def _object(kind: Kind, meta: ObjectMeta) -> Manifest:
    owner = {
        "apiVersion": API_VERSION,
        "kind": MODEL_DEPLOYMENT_KIND,
        "name": meta.name,
        "uid": meta.uid,
        "controller": True,
    }
    return {
        "apiVersion": RESOURCES[kind].api_version,
        "kind": kind.value,
        "metadata": {
            "name": meta.name,
            "namespace": meta.namespace,
            "labels": _labels(meta),
            "ownerReferences": [owner],
        },
    }


def _labels(meta: ObjectMeta) -> dict[str, str]:
    return {
        MODEL_LABEL: meta.name,
        NAME_LABEL: "motet",
        COMPONENT_LABEL: "runtime",
        MANAGED_BY_LABEL: MANAGED_BY,
    }
