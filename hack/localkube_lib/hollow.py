"""Hollow nodes: kwok plays the kubelet of nodes that do not exist, so that scheduling and scale cost no machine.

Their pods become Ready after a set delay and end when deleted; they never complete. A taint keeps other pods off: a pod
that is meant for them tolerates `localkube/hollow` and selects the label of the same name.
"""

import json
from pathlib import Path
from typing import Any

from localkube_lib import binaries, netns
from localkube_lib.cluster import Cluster
from localkube_lib.console import step

LABEL = "localkube/hollow"
PROCESS = "kwok"
_READY = '.status.conditions.[] | select( .type == "Ready" ) | .status'

_NODE_STATUS = """
{{ $now := Now }}
conditions:
{{ range NodeConditions }}
- {type: {{ .type | Quote }}, status: {{ .status | Quote }},
   reason: {{ .reason | Quote }}, message: {{ .message | Quote }},
   lastHeartbeatTime: {{ $now | Quote }}, lastTransitionTime: {{ $now | Quote }}}
{{ end }}
addresses:
- {type: InternalIP, address: {{ NodeIP | Quote }}}
- {type: Hostname, address: {{ NodeName | Quote }}}
"""

_POD_STATUS = """
{{ $now := Now }}
phase: Running
startTime: {{ $now | Quote }}
hostIP: {{ NodeIPWith .spec.nodeName | Quote }}
podIP: {{ PodIPWith .spec.nodeName false .metadata.uid .metadata.name .metadata.namespace | Quote }}
conditions:
- {type: Initialized, status: "True", lastTransitionTime: {{ $now | Quote }}}
- {type: ContainersReady, status: "True", lastTransitionTime: {{ $now | Quote }}}
- {type: Ready, status: "True", lastTransitionTime: {{ $now | Quote }}}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  ready: true
  started: true
  restartCount: 0
  state: {running: {startedAt: {{ $now | Quote }}}}
{{ end }}
"""


def ensure_hollow_nodes(cluster: Cluster, nodes: int, gpus: int, start_delay_ms: int) -> None:
    """Have this many hollow nodes, each with this many GPUs; their pods are Ready after the delay.

    Nodes beyond that number, of an earlier call, are removed.
    """
    config = cluster.paths.config / "kwok.json"
    stages = "\n---\n".join(json.dumps(stage) for stage in _stages(start_delay_ms))
    with cluster.alone(), step(f"{nodes} hollow nodes with {gpus} GPUs each"):
        if not config.exists() or config.read_text() != stages:
            cluster.processes.stop(PROCESS)
            config.write_text(stages)
        manifests = [_node(index, gpus) for index in range(nodes)]
        wanted = {str(manifest["metadata"]["name"]) for manifest in manifests}
        listed = cluster.kubectl("get", "nodes", "-l", f"{LABEL}=true", "-o", "jsonpath={.items[*].metadata.name}")
        surplus = sorted(set(listed.split()) - wanted)
        if surplus:
            cluster.kubectl("delete", "node", *surplus)
        if not manifests:
            return
        cluster.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}))
        _start(cluster, config)
        cluster.kubectl("wait", "--for=condition=Ready", "node", "-l", f"{LABEL}=true", "--timeout=120s", timeout=130)


def _start(cluster: Cluster, config: Path) -> None:
    kwok = binaries.build(binaries.KWOK) / "kwok"
    cluster.processes.start(
        PROCESS,
        [
            *netns.enter(cluster.paths.netns),
            str(kwok),
            f"--config={config}",
            f"--kubeconfig={cluster.inside_kubeconfig()}",
            f"--manage-nodes-with-label-selector={LABEL}=true",
            "--cidr=10.245.0.0/16",
            "--node-ip=10.77.1.1",
            "--node-lease-duration-seconds=40",
        ],
    )


def _node(index: int, gpus: int) -> dict[str, Any]:
    name = f"hollow-{index}"
    capacity = {"cpu": "64", "memory": "512Gi", "pods": "500", "nvidia.com/gpu": str(gpus)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {LABEL: "true", "kubernetes.io/hostname": name}},
        "spec": {"taints": [{"key": LABEL, "value": "true", "effect": "NoSchedule"}]},
        "status": {"capacity": capacity, "allocatable": capacity},
    }


def _stages(start_delay_ms: int) -> list[dict[str, Any]]:
    alive = {"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"}
    not_ready = {"key": _READY, "operator": "NotIn", "values": ["True"]}
    deleted = {"key": ".metadata.deletionTimestamp", "operator": "Exists"}
    return [
        _stage("node-ready", "Node", [not_ready], {"statusTemplate": _NODE_STATUS}),
        _stage("pod-ready", "Pod", [alive, not_ready], {"statusTemplate": _POD_STATUS}, start_delay_ms),
        _stage("pod-delete", "Pod", [deleted], {"delete": True}),
    ]


def _stage(
    name: str, kind: str, match: list[dict[str, Any]], step: dict[str, Any], delay_ms: int = 0
) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "resourceRef": {"apiGroup": "v1", "kind": kind},
        "selector": {"matchExpressions": match},
        "next": step,
    }
    if delay_ms:
        spec["delay"] = {"durationMilliseconds": delay_ms}
    return {"apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": "Stage", "metadata": {"name": name}, "spec": spec}
