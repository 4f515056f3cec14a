"""The objects that a ModelDeployment becomes: one pure `make_*` function per kind.

What is not said here is left to Kubernetes and to others: only the fields below are ours under server-side apply.
"""

import hashlib
import json
from typing import Any, Final

from motet_api.modeldeployment import AutoscalingSpec, EngineType, ModelDeploymentSpec, ModelSourceStatus
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
from motet_operator.installation import Installation, Peers
from motet_operator.keys import CHILDREN, RESOURCES, Kind, child_name
from motet_operator.models.network_policy import make_network_policy_spec
from motet_operator.models.pod_template import make_pod_template
from motet_operator.models.prefetcher import make_prefetch_template, prefetch_labels, prefetches

Manifest = dict[str, Any]

_KEPT_REVISIONS: Final = 3
_SETTLING_SECONDS: Final = 3
"""A new pod must stay ready for so long before an old one goes: one that falls over at once replaces nothing."""
_PROGRESS_SECONDS: Final = 1800
"""Images and weights of many gigabytes are on their way for minutes; after so long something is wrong."""


def wanted_children(spec: ModelDeploymentSpec, installation: Installation) -> frozenset[Kind]:
    """Kinds of which there should be a child, whether or not it can be made yet."""
    optional = {
        Kind.AUTOSCALER: spec.autoscaling is not None,
        Kind.NETWORK_POLICY: installation.peers is not None,
        Kind.PREFETCHER: prefetches(spec),
    }
    return frozenset(kind for kind in CHILDREN if optional.get(kind, True))


def make_children(
    meta: ObjectMeta, spec: ModelDeploymentSpec, base: ModelSourceStatus | None, installation: Installation
) -> dict[Kind, Manifest]:
    """Every child that can be made, in the order in which they are needed.

    Those whose pods need the base's files can be once it is known what `base` they serve.
    """
    made: dict[Kind, Manifest] = {Kind.SERVICE_ACCOUNT: make_service_account(meta), Kind.SERVICE: make_service(meta)}
    if installation.peers is not None:
        made[Kind.NETWORK_POLICY] = make_network_policy(meta, spec.engine.type, installation.peers)
    made[Kind.DISRUPTION_BUDGET] = make_disruption_budget(meta)
    if base is not None:
        if prefetches(spec):
            made[Kind.PREFETCHER] = make_prefetcher(meta, spec, base, installation)
        made[Kind.DEPLOYMENT] = make_deployment(meta, spec, base, installation)
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


def make_network_policy(meta: ObjectMeta, engine: EngineType, peers: Peers) -> Manifest:
    """Keeps everybody but the gateway and the operator from the pods."""
    return _object(Kind.NETWORK_POLICY, meta) | {"spec": make_network_policy_spec(meta.name, engine, peers)}


def make_disruption_budget(meta: ObjectMeta) -> Manifest:
    """Nodes that are drained take one pod at a time; one that is not ready serves nobody and keeps no node."""
    return _object(Kind.DISRUPTION_BUDGET, meta) | {
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": {MODEL_LABEL: meta.name}},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        }
    }


def make_prefetcher(
    meta: ObjectMeta, spec: ModelDeploymentSpec, base: ModelSourceStatus, installation: Installation
) -> Manifest:
    """Fills the nodes: several at once, and not all, since they fetch from one store."""
    own = prefetch_labels(meta.name)
    labels = {key: value for key, value in _labels(meta).items() if key != MODEL_LABEL} | own
    return _object(Kind.PREFETCHER, meta) | {
        "spec": {
            "revisionHistoryLimit": 1,
            "selector": {"matchLabels": own},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%"}},
            "template": make_prefetch_template(labels | {COMPONENT_LABEL: "prefetch"}, spec, base, installation),
        }
    }


def make_deployment(
    meta: ObjectMeta, spec: ModelDeploymentSpec, base: ModelSourceStatus, installation: Installation
) -> Manifest:
    """The runtime pods. A new pod is ready, with its adapters, before an old one goes."""
    return _object(Kind.DEPLOYMENT, meta) | {
        "spec": {
            "replicas": spec.replicas,
            "revisionHistoryLimit": _KEPT_REVISIONS,
            "minReadySeconds": _SETTLING_SECONDS,
            "progressDeadlineSeconds": _PROGRESS_SECONDS,
            "selector": {"matchLabels": {MODEL_LABEL: meta.name}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": make_pod_template(meta.name, _labels(meta), spec, base, installation),
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
            "name": child_name(kind, meta.name),
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
