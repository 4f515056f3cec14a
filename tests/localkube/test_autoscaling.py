"""The real HorizontalPodAutoscaler scales on an Object metric of an aggregated API."""

import base64
import json
import subprocess
from pathlib import Path

import pytest

from localkube_lib.cluster import Cluster
from tests.localkube.manifests import SERVE, deployment
from tests.waiting import eventually

pytestmark = pytest.mark.localkube

SERVER = """
import http.server, json, ssl

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        version = 'custom.metrics.k8s.io/v1beta2'
        resource = {'name': 'deployments.apps/depth', 'singularName': '', 'namespaced': True,
                    'kind': 'MetricValueList', 'verbs': ['get']}
        body = {'kind': 'APIResourceList', 'apiVersion': 'v1', 'groupVersion': version, 'resources': [resource]}
        if '/namespaces/' in self.path:
            value = open('/value/depth').read().strip()
            item = {'describedObject': {'kind': 'Deployment', 'name': 'web', 'apiVersion': 'apps/v1'},
                    'metric': {'name': 'depth'}, 'timestamp': '2026-01-01T00:00:00Z', 'value': value}
            body = {'kind': 'MetricValueList', 'apiVersion': version, 'metadata': {}, 'items': [item]}
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(data)))
        self.end_headers()
        self.wfile.write(data)

server = http.server.ThreadingHTTPServer(('', 6443), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain('/tls/tls.crt', '/tls/tls.key')
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


def _certificate(folder: Path, host: str) -> tuple[str, str]:
    certificate, key = folder / "tls.crt", folder / "tls.key"
    options = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    names = ["-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", "req", *options, *names, *files], check=True, capture_output=True)
    return str(certificate), str(key)


def test_hpa_on_an_object_metric_scales(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    certificate, key = _certificate(tmp_path, f"metrics.{namespace}.svc")
    cluster.kubectl("create", "secret", "tls", "tls", "-n", namespace, f"--cert={certificate}", f"--key={key}")
    cluster.kubectl("create", "configmap", "value", "-n", namespace, "--from-literal=depth=1")
    manifest = json.loads(
        deployment(
            "metrics",
            SERVER,
            readinessProbe={"tcpSocket": {"port": 6443}, "periodSeconds": 1},
            volumeMounts=[{"name": "tls", "mountPath": "/tls"}, {"name": "value", "mountPath": "/value"}],
        )
    )
    manifest["spec"]["template"]["spec"]["volumes"] = [
        {"name": "tls", "secret": {"secretName": "tls"}},
        {"name": "value", "configMap": {"name": "value"}},
    ]
    api = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": "v1beta2.custom.metrics.k8s.io"},
        "spec": {
            "group": "custom.metrics.k8s.io",
            "version": "v1beta2",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "service": {"name": "metrics", "namespace": namespace, "port": 443},
            "caBundle": base64.b64encode(Path(certificate).read_bytes()).decode(),
        },
    }
    hpa = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 1,
            "maxReplicas": 3,
            "metrics": [
                {
                    "type": "Object",
                    "object": {
                        "describedObject": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
                        "metric": {"name": "depth"},
                        "target": {"type": "AverageValue", "averageValue": "2"},
                    },
                }
            ],
        },
    }
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "test-read-metrics"},
        "rules": [{"apiGroups": ["custom.metrics.k8s.io"], "resources": ["*"], "verbs": ["get", "list"]}],
    }
    try:
        for document in (manifest, json.loads(deployment("web", SERVE)), api, hpa, role):
            cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(document))
        account = "--serviceaccount=kube-system:horizontal-pod-autoscaler"
        cluster.kubectl("create", "clusterrolebinding", "test-read-metrics", "--clusterrole=test-read-metrics", account)
        cluster.kubectl("expose", "-n", namespace, "deployment/metrics", "--port=443", "--target-port=6443")
        cluster.kubectl(
            "wait", "--for=condition=Available", "apiservice/v1beta2.custom.metrics.k8s.io", "--timeout=60s", timeout=70
        )
        path = "jsonpath={.status.currentMetrics[0].object.current.averageValue}"
        eventually(
            lambda: cluster.kubectl("get", "hpa", "web", "-n", namespace, "-o", path), lambda value: value == "1", 60
        )
        assert _replicas(cluster, namespace) == "1"
        patch = json.dumps({"data": {"depth": "6"}})
        cluster.kubectl("patch", "configmap", "value", "-n", namespace, f"-p={patch}")
        # The kubelet carries a changed ConfigMap into a running pod within about a minute; a new pod sees it at once.
        cluster.kubectl("rollout", "restart", "-n", namespace, "deployment/metrics")
        eventually(lambda: _replicas(cluster, namespace), lambda value: value == "3", 60, "three replicas")
    finally:
        cluster.kubectl("delete", "apiservice", "v1beta2.custom.metrics.k8s.io", "--ignore-not-found")
        cluster.kubectl("delete", "clusterrolebinding,clusterrole", "test-read-metrics", "--ignore-not-found")


def _replicas(cluster: Cluster, namespace: str) -> str:
    return cluster.kubectl("get", "deployment", "web", "-n", namespace, "-o", "jsonpath={.spec.replicas}")
