"""Configuration and command lines of the node: containerd, kubelet, kube-proxy, and the mount namespace they share.

containerd and kubelet live in one private mount namespace, held open by a process of its own, so that what they mount
is gone when that process ends and never shows on the machine.
"""

import json
import sys
import textwrap
from pathlib import Path

from localkube_lib import netns
from localkube_lib.certificates import Certificates
from localkube_lib.components import API_PORT, NODE_IP, POD_CIDR, Settings
from localkube_lib.files import write_changed
from localkube_lib.paths import ClusterPaths
from localkube_lib.processes import ProcessRecord

PAUSE_IMAGE = "motet.local/pause:1"
WANTED_SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
"""What kubelet insists on. Files with these values are mounted over the machine's, which keep their own."""
PRIVATE_FOLDERS = ("/run/containerd", "/var/lib/cni", "/var/lib/kubelet", "/var/log/containers")
"""Folders whose names are fixed in containerd and kubelet: each cluster sees its own, empty at first."""


def containerd_socket(paths: ClusterPaths) -> Path:
    """containerd's socket (a path below 100 characters: the limit of a socket's name is 107)."""
    return paths.run / "containerd.sock"


def mount_holder(paths: ClusterPaths) -> list[str]:
    """A process that holds the mount namespace open."""
    sysctls = paths.config / "sysctl"
    for name, value in WANTED_SYSCTLS.items():
        write_changed(sysctls / name, value + "\n")
    script = [
        "mount --make-rprivate /",
        "mount --make-rshared /",
        *(f"mount --bind {sysctls / name} /proc/sys/{name}" for name in WANTED_SYSCTLS),
        *(f"mkdir -p {folder}; mount -t tmpfs tmpfs {folder}" for folder in PRIVATE_FOLDERS),
        f"mkdir -p {paths.kubelet}",
        "exec sleep infinity",
    ]
    return [*netns.enter(paths.netns), "unshare", "--mount", "--propagation", "private", "sh", "-ec", "; ".join(script)]


def holds_mounts(holder: ProcessRecord) -> bool:
    """Whether the holder has made its mounts: its last step is to become `sleep`."""
    return Path(f"/proc/{holder.pid}/cmdline").read_text().startswith("sleep\0")


def enter(paths: ClusterPaths, holder: ProcessRecord) -> list[str]:
    """Prefix of a command that runs in the node's mount and network namespaces."""
    return ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt", f"--net=/run/netns/{paths.netns}", "--"]


def write_containerd_config(paths: ClusterPaths, cni_plugins: Path) -> Path:
    """containerd's configuration and the pod network's; returns the former's path."""
    network = paths.config / "cni"
    # Point-to-point links, not a bridge: every packet is routed, so a Service's address translation sees both ways
    # without the kernel's bridge filter.
    pod_network = {
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "ptp",
                "mtu": 1500,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(paths.run / "ipam"),
                    "ranges": [[{"subnet": POD_CIDR.replace("/16", "/24")}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }
        ],
    }
    write_changed(network / "10-pods.conflist", json.dumps(pod_network, indent=1))
    return write_changed(
        paths.config / "containerd.toml",
        textwrap.dedent(f"""\
            version = 3
            root = "{paths.containerd}"
            state = "{paths.run}/containerd"
            oom_score = 0
            disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp"]

            [grpc]
              address = "{containerd_socket(paths)}"

            [plugins.'io.containerd.cri.v1.images']
              snapshotter = "overlayfs"
              [plugins.'io.containerd.cri.v1.images'.pinned_images]
                sandbox = "{PAUSE_IMAGE}"

            [plugins.'io.containerd.cri.v1.runtime']
              restrict_oom_score_adj = true
              disable_hugetlb_controller = true
              disable_apparmor = true
              netns_mounts_under_state_dir = true
              [plugins.'io.containerd.cri.v1.runtime'.cni]
                bin_dirs = ["{cni_plugins}"]
                conf_dir = "{network}"
              [plugins.'io.containerd.cri.v1.runtime'.containerd]
                default_runtime_name = "runc"
                [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
                  runtime_type = "io.containerd.runc.v2"
                  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
                    SystemdCgroup = false
            """),
    )


def write_kubelet_config(paths: ClusterPaths, pki: Certificates) -> Path:
    """kubelet's configuration for a machine with control groups v1 and without CAP_SYS_RESOURCE."""
    resolver = write_changed(paths.config / "resolv.conf", "")
    document = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": "0.0.0.0",  # noqa: S104 - inside the cluster's own network namespace
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True, "cacheTTL": "10s"},
            "x509": {"clientCAFile": pki.crt("ca")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": pki.crt("kubelet"),
        "tlsPrivateKeyFile": pki.key("kubelet"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{paths.netns}",
        "failCgroupV1": False,
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "containerRuntimeEndpoint": f"unix://{containerd_socket(paths)}",
        "podLogsDir": str(paths.logs / "pods"),
        "resolvConf": str(resolver),
        "clusterDNS": [NODE_IP],
        "clusterDomain": "cluster.local",
        "volumePluginDir": str(paths.config / "volume-plugins"),
        "staticPodPath": "",
        "maxPods": 200,
        "serializeImagePulls": False,
        # Images are loaded by hand and must stay.
        "imageGCHighThresholdPercent": 100,
        "imageMinimumGCAge": "100000h",
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "nodeStatusUpdateFrequency": "5s",
        "makeIPTablesUtilChains": False,
        "protectKernelDefaults": False,
    }
    return write_changed(paths.config / "kubelet.json", json.dumps(document, indent=1))


def kubelet(paths: ClusterPaths, config: Path, settings: Settings) -> list[str]:
    """kubelet's command line."""
    return [
        "kubelet",
        f"--config={config}",
        f"--kubeconfig={paths.config / 'kubelet.kubeconfig'}",
        f"--root-dir={paths.kubelet}",
        f"--cert-dir={paths.kubelet / 'pki'}",
        f"--node-ip={NODE_IP}",
        f"--hostname-override={settings.node_name}",
        "--v=1",
    ]


def dns(pki: Certificates) -> list[str]:
    """The command line of the cluster's DNS."""
    identity = ["--ca", pki.crt("ca"), "--cert", pki.crt("admin"), "--key", pki.key("admin")]
    script = Path(__file__).with_name("dns.py")
    return [sys.executable, str(script), "--address", NODE_IP, "--api-port", str(API_PORT), *identity]


def write_proxy_config(paths: ClusterPaths, settings: Settings) -> Path:
    """kube-proxy's configuration: nftables inside the namespace; the machine's connection tracking stays as it is."""
    document = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": POD_CIDR,
        "hostnameOverride": settings.node_name,
        "bindAddress": "0.0.0.0",  # noqa: S104 - inside the cluster's own network namespace
        "clientConnection": {"kubeconfig": str(paths.config / "proxy.kubeconfig")},
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "nftables": {"minSyncPeriod": "200ms", "syncPeriod": "30s", "masqueradeAll": False},
    }
    return write_changed(paths.config / "kube-proxy.json", json.dumps(document, indent=1))
