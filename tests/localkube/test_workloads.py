"""What a node owes to the objects: rolling, restarting, mounting, refusing, scheduling, ending."""

import json
import time
import urllib.request

import pytest

from localkube_lib.cluster import Cluster
from localkube_lib.hollow import LABEL, ensure_hollow_nodes
from tests.localkube.manifests import IMAGE, SERVE, deployment, pod
from tests.waiting import eventually

pytestmark = pytest.mark.localkube


def test_deployment_rolls_and_is_reached_through_its_service(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=deployment("web", SERVE, replicas=2))
    cluster.kubectl("rollout", "status", "-n", namespace, "deployment/web", "--timeout=60s")
    cluster.kubectl("expose", "-n", namespace, "deployment/web", "--port=80", "--target-port=8080")
    port = cluster.forward(f"{namespace}/web:80")
    assert cluster.forward(f"{namespace}/web:80") == port

    def get() -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2) as answer:
                return int(answer.status)
        except OSError:
            return 0

    eventually(get, lambda status: status == 200, 20, "the Service")
    before = set(cluster.kubectl("get", "pods", "-n", namespace, "-o", "name").split())
    cluster.kubectl("set", "env", "-n", namespace, "deployment/web", "CHANGED=yes")
    cluster.kubectl("rollout", "status", "-n", namespace, "deployment/web", "--timeout=60s")
    after = eventually(
        lambda: set(cluster.kubectl("get", "pods", "-n", namespace, "-o", "name").split()),
        lambda names: len(names) == 2 and not names & before,
        30,
        "two new pods",
    )
    assert after.isdisjoint(before)


def test_crashed_container_restarts(cluster: Cluster, namespace: str) -> None:
    code = "import os,time; n=os.path.exists('/data/once'); open('/data/once','w'); time.sleep(600 if n else 0.2)"
    spec = {"volumes": [{"name": "data", "emptyDir": {}}]}
    mounts = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=pod("crash", code, spec, **mounts))
    path = "jsonpath={.status.containerStatuses[0].restartCount}/{.status.containerStatuses[0].ready}"
    eventually(
        lambda: cluster.kubectl("get", "pod", "crash", "-n", namespace, "-o", path),
        lambda seen: seen == "1/true",
        60,
        "one restart",
    )


def test_config_map_and_token_are_mounted(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("create", "configmap", "settings", "-n", namespace, "--from-literal=greeting=hello")
    code = (
        "print(open('/settings/greeting').read());"
        "print(len(open('/var/run/secrets/kubernetes.io/serviceaccount/token').read()) > 100)"
    )
    spec = {"volumes": [{"name": "settings", "configMap": {"name": "settings"}}], "restartPolicy": "Never"}
    mounts = {"volumeMounts": [{"name": "settings", "mountPath": "/settings"}]}
    cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=pod("mounts", code, spec, **mounts))
    cluster.kubectl("wait", "-n", namespace, "pod/mounts", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
    assert cluster.kubectl("logs", "-n", namespace, "mounts").split() == ["hello", "True"]


def test_service_account_without_rights_is_refused(cluster: Cluster, namespace: str) -> None:
    code = """
import json, ssl, urllib.request, urllib.error, os
folder = '/var/run/secrets/kubernetes.io/serviceaccount/'
host = os.environ['KUBERNETES_SERVICE_HOST'] + ':' + os.environ['KUBERNETES_SERVICE_PORT']
request = urllib.request.Request(f'https://{host}/api/v1/secrets')
request.add_header('Authorization', 'Bearer ' + open(folder + 'token').read())
try:
    urllib.request.urlopen(request, context=ssl.create_default_context(cafile=folder + 'ca.crt'), timeout=10)
    print('allowed')
except urllib.error.HTTPError as error:
    print(error.code)
"""
    cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=pod("ask", code, {"restartPolicy": "Never"}))
    cluster.kubectl("wait", "-n", namespace, "pod/ask", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
    assert cluster.kubectl("logs", "-n", namespace, "ask").strip() == "403"


def test_pod_that_asks_for_more_gpus_than_exist_stays_pending(cluster: Cluster, namespace: str) -> None:
    for name, gpus in (("fits", 2), ("too-many", 3)):
        manifest = pod(name, "import time; time.sleep(600)", resources={"limits": {"nvidia.com/gpu": gpus}})
        cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=manifest)
    cluster.kubectl("wait", "-n", namespace, "pod/fits", "--for=condition=Ready", "--timeout=60s")
    path = "jsonpath={.status.phase} {.status.conditions[?(@.type=='PodScheduled')].message}"
    seen = cluster.kubectl("get", "pod", "too-many", "-n", namespace, "-o", path)
    assert seen.startswith("Pending")
    assert "Insufficient nvidia.com/gpu" in seen


def test_deletion_honours_the_grace_period(cluster: Cluster, namespace: str) -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: print('asked')); time.sleep(600)"
    manifest = pod("stubborn", code, {"terminationGracePeriodSeconds": 3})
    cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=manifest)
    cluster.kubectl("wait", "-n", namespace, "pod/stubborn", "--for=condition=Ready", "--timeout=60s")
    started = time.monotonic()
    cluster.kubectl("delete", "pod", "stubborn", "-n", namespace, "--wait=false")
    eventually(
        lambda: cluster.kubectl("logs", "-n", namespace, "stubborn", check=False), lambda log: "asked" in log, 10
    )
    cluster.kubectl("wait", "--for=delete", "pod/stubborn", "-n", namespace, "--timeout=30s")
    assert time.monotonic() - started >= 2.5


def test_hollow_nodes_take_as_many_pods_as_they_have_gpus(cluster: Cluster, namespace: str) -> None:
    ensure_hollow_nodes(cluster, nodes=2, gpus=4, start_delay_ms=500)
    manifest = json.loads(deployment("fleet", "", replicas=9, resources={"limits": {"nvidia.com/gpu": 1}}))
    manifest["spec"]["template"]["spec"] |= {
        "nodeSelector": {LABEL: "true"},
        "tolerations": [{"key": LABEL, "operator": "Exists"}],
    }
    cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(manifest))
    path = "jsonpath={.status.readyReplicas}"
    eventually(
        lambda: cluster.kubectl("get", "deployment", "fleet", "-n", namespace, "-o", path),
        lambda ready: ready == "8",
        60,
        "eight of nine pods",
    )
    pending = cluster.kubectl("get", "pods", "-n", namespace, "--field-selector=status.phase=Pending", "-o", "name")
    assert len(pending.split()) == 1
    assert IMAGE in json.dumps(manifest)
