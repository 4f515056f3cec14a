"""The command line of each control-plane component: pure functions of the cluster's settings."""

from dataclasses import dataclass

from localkube_lib.certificates import Certificates
from localkube_lib.paths import ClusterPaths

NODE_IP = "10.77.0.2"
NODE_SUBNET = "10.77.0.0/24"
SERVICE_CIDR = "10.96.0.0/16"
SERVICE_IP = "10.96.0.1"
POD_CIDR = "10.244.0.0/16"
API_PORT = 6443


@dataclass(frozen=True, slots=True)
class Settings:
    """What `up` can be told. The addresses are the same in every cluster: each has a network namespace of its own."""

    hpa_sync_period: str = "15s"
    audit: bool = False
    gpus: int = 0
    node_name: str = "node-0"
    node: bool = True
    """Whether there is a real node. Without one only hollow nodes run pods: the control plane starts in less time."""


def etcd(paths: ClusterPaths) -> list[str]:
    """No fsync: the data does not outlive the cluster."""
    return [
        "etcd",
        f"--data-dir={paths.etcd}",
        "--unsafe-no-fsync",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--initial-advertise-peer-urls=http://127.0.0.1:2380",
        "--initial-cluster=default=http://127.0.0.1:2380",
        "--log-level=warn",
    ]


def kube_apiserver(paths: ClusterPaths, pki: Certificates, settings: Settings) -> list[str]:
    """RBAC and node authorization, default admission, and the aggregation layer with its request-header authority."""
    arguments = [
        "kube-apiserver",
        "--etcd-servers=http://127.0.0.1:2379",
        f"--advertise-address={NODE_IP}",
        "--bind-address=0.0.0.0",
        f"--secure-port={API_PORT}",
        f"--service-cluster-ip-range={SERVICE_CIDR}",
        "--allow-privileged",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        f"--client-ca-file={pki.crt('ca')}",
        f"--tls-cert-file={pki.crt('apiserver')}",
        f"--tls-private-key-file={pki.key('apiserver')}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki.key('service-account')}",
        f"--service-account-signing-key-file={pki.key('service-account')}",
        f"--requestheader-client-ca-file={pki.crt('front-proxy-ca')}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={pki.crt('front-proxy-client')}",
        f"--proxy-client-key-file={pki.key('front-proxy-client')}",
        f"--kubelet-client-certificate={pki.crt('apiserver-kubelet-client')}",
        f"--kubelet-client-key={pki.key('apiserver-kubelet-client')}",
        "--kubelet-preferred-address-types=InternalIP",
        "--endpoint-reconciler-type=lease",
    ]
    if settings.audit:
        arguments += [
            f"--audit-policy-file={paths.config / 'audit-policy.json'}",
            f"--audit-log-path={paths.audit_log}",
            "--audit-log-maxsize=1000",
        ]
    return arguments


def kube_controller_manager(paths: ClusterPaths, pki: Certificates, settings: Settings) -> list[str]:
    """All default controllers, the HorizontalPodAutoscaler's at the period users have unless told otherwise."""
    kubeconfig = paths.config / "controller-manager.kubeconfig"
    return [
        "kube-controller-manager",
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--use-service-account-credentials",
        f"--root-ca-file={pki.crt('ca')}",
        f"--client-ca-file={pki.crt('ca')}",
        f"--cluster-signing-cert-file={pki.crt('ca')}",
        f"--cluster-signing-key-file={pki.key('ca')}",
        f"--service-account-private-key-file={pki.key('service-account')}",
        f"--requestheader-client-ca-file={pki.crt('front-proxy-ca')}",
        f"--flex-volume-plugin-dir={paths.config / 'volume-plugins'}",
        "--allocate-node-cidrs",
        f"--cluster-cidr={POD_CIDR}",
        f"--service-cluster-ip-range={SERVICE_CIDR}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        f"--horizontal-pod-autoscaler-sync-period={settings.hpa_sync_period}",
        # The default of 20 a second makes its controllers wait for seconds at the start.
        "--kube-api-qps=200",
        "--kube-api-burst=400",
    ]


def kube_scheduler(paths: ClusterPaths) -> list[str]:
    """The default scheduler."""
    kubeconfig = paths.config / "scheduler.kubeconfig"
    return [
        "kube-scheduler",
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
    ]


AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}
