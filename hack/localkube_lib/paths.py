"""Where a cluster keeps its files: everything lies below the cache folder, nothing in the checkout."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from localkube_lib.errors import LocalKubeError

REPOSITORY = Path(__file__).resolve().parents[2]


def cache_root() -> Path:
    """`${XDG_CACHE_HOME:-~/.cache}/motet`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "motet"


@dataclass(frozen=True, slots=True)
class ClusterPaths:
    """The folders and files of one cluster by name."""

    name: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", self.name):
            raise LocalKubeError(f"--name {self.name!r}: use 1 to 22 lower-case letters, digits and hyphens")

    @property
    def root(self) -> Path:
        """Folder of everything that belongs to this cluster."""
        return cache_root() / "localkube" / "clusters" / self.name

    @property
    def pki(self) -> Path:
        """Certificates and keys; kept across `down` so that a kubeconfig stays valid."""
        return self.root / "pki"

    @property
    def run(self) -> Path:
        """Process records and sockets; gone after `down`."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """One log file for each component."""
        return self.root / "logs"

    @property
    def etcd(self) -> Path:
        """etcd's data; fresh on every `up` after a `down`."""
        return self.root / "etcd"

    @property
    def kubelet(self) -> Path:
        """kubelet's root; fresh on every `up` after a `down`."""
        return self.root / "kubelet"

    @property
    def containerd(self) -> Path:
        """containerd's root: images survive `down`."""
        return self.root / "containerd"

    @property
    def config(self) -> Path:
        """Configuration files of the components."""
        return self.root / "config"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig, for use from the host."""
        return self.root / "kubeconfig"

    @property
    def audit_log(self) -> Path:
        """The API server's audit log, when `up --audit` asked for one."""
        return self.logs / "audit.jsonl"

    @property
    def netns(self) -> str:
        """The network namespace that holds the whole cluster."""
        return f"motet-{self.name}"
