"""The JSON of the API, field by field as Kubernetes' own clients expect it. Pure."""

from datetime import datetime
from typing import Any, Final

from motet_api.names import (
    API_VERSION,
    CUSTOM_METRICS_GROUP,
    GROUP,
    MODEL_DEPLOYMENT_KIND,
    MODEL_DEPLOYMENT_PLURAL,
    QUEUE_DEPTH_METRIC,
)
from motet_operator.metrics_api.demand import Reading

Document = dict[str, Any]

VERSIONS: Final = ("v1beta2", "v1beta1")
"""Preferred first."""
RESOURCE: Final = f"{MODEL_DEPLOYMENT_PLURAL}.{GROUP}"
_WINDOW_SECONDS: Final = 1


def group_list() -> Document:
    """Answer of `/apis`."""
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group()]}


def group() -> Document:
    """Answer of `/apis/<group>`."""
    return {"kind": "APIGroup", "apiVersion": "v1", **_group()}


def resource_list(version: str) -> Document:
    """Answer of `/apis/<group>/<version>`."""
    resource = {
        "name": f"{RESOURCE}/{QUEUE_DEPTH_METRIC}",
        "singularName": "",
        "namespaced": True,
        "kind": "MetricValueList",
        "verbs": ["get"],
    }
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{CUSTOM_METRICS_GROUP}/{version}",
        "resources": [resource],
    }


def metric_value_list(version: str, namespace: str, name: str, reading: Reading) -> Document:
    """Answer for one object: exactly one value."""
    value: Document = {
        "describedObject": {
            "kind": MODEL_DEPLOYMENT_KIND,
            "namespace": namespace,
            "name": name,
            "apiVersion": API_VERSION,
        },
        "timestamp": _time(reading.at),
        "value": str(reading.value),
    }
    if version == "v1beta1":
        value |= {"metricName": QUEUE_DEPTH_METRIC, "window": _WINDOW_SECONDS, "selector": None}
    else:
        value |= {"metric": {"name": QUEUE_DEPTH_METRIC, "selector": None}, "windowSeconds": _WINDOW_SECONDS}
    return {
        "kind": "MetricValueList",
        "apiVersion": f"{CUSTOM_METRICS_GROUP}/{version}",
        "metadata": {},
        "items": [value],
    }


def failure(code: int, reason: str, message: str) -> Document:
    """A `Status` object, which is how Kubernetes' clients take errors."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }


def _group() -> Document:
    versions = [{"groupVersion": f"{CUSTOM_METRICS_GROUP}/{version}", "version": version} for version in VERSIONS]
    return {"name": CUSTOM_METRICS_GROUP, "versions": versions, "preferredVersion": versions[0]}


def _time(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
