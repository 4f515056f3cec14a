"""Builds the cluster's programs from pinned Go modules, once for each state of their go.mod, go.sum and sources."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from localkube_lib.console import say
from localkube_lib.errors import LocalKubeError
from localkube_lib.paths import REPOSITORY, cache_root

KUBERNETES_VERSION = "1.36.2"
_VERSION_PACKAGE = "k8s.io/component-base/version"
_KUBERNETES_LDFLAGS = " ".join(
    f"-X {_VERSION_PACKAGE}.{key}={value}"
    for key, value in {
        "gitVersion": f"v{KUBERNETES_VERSION}",
        "gitMajor": "1",
        "gitMinor": "36",
        "gitTreeState": "clean",
    }.items()
)
_CNI = "github.com/containernetworking/plugins/plugins"
_CONTAINERD = "github.com/containerd/containerd/v2/cmd"


@dataclass(frozen=True, slots=True)
class GoModule:
    """One folder below hack/go and the programs that are built from it."""

    name: str
    packages: tuple[str, ...]
    ldflags: str = ""

    @property
    def folder(self) -> Path:
        """The module's folder in the checkout."""
        return REPOSITORY / "hack" / "go" / self.name

    def key(self) -> str:
        """Hash of everything the result depends on."""
        digest = hashlib.sha256(f"{self.packages}{self.ldflags}".encode())
        for path in sorted(self.folder.glob("*")):
            if path.suffix in {".go", ".mod", ".sum"}:
                digest.update(path.name.encode() + b"\0" + path.read_bytes())
        return digest.hexdigest()[:16]


KUBERNETES = GoModule("kubernetes", (".",), _KUBERNETES_LDFLAGS)
CONTAINERD = GoModule(
    "containerd", tuple(f"{_CONTAINERD}/{name}" for name in ("containerd", "containerd-shim-runc-v2", "ctr"))
)
CNI_PLUGINS = GoModule("cni", tuple(f"{_CNI}/{name}" for name in ("main/ptp", "main/loopback", "ipam/host-local")))
PAUSE = GoModule("pause", (".",))
HELM = GoModule("helm", ("helm.sh/helm/v3/cmd/helm",))
KWOK = GoModule("kwok", ("sigs.k8s.io/kwok/cmd/kwok",))
REGISTRY = GoModule("registry", (".",))
VERSITYGW = GoModule("versitygw", ("github.com/versity/versitygw/cmd/versitygw",))
MODULES = (KUBERNETES, CONTAINERD, CNI_PLUGINS, PAUSE, HELM, KWOK, REGISTRY, VERSITYGW)


def build(module: GoModule) -> Path:
    """The folder with the module's programs, built if need be.

    Raises:
        LocalKubeError: Go is not installed or the build failed.
    """
    target = cache_root() / "localkube" / "bin" / f"{module.name}-{module.key()}"
    if (target / ".complete").exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f".{module.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / ".complete").exists():
            _build(module, target)
    return target


def kubectl() -> Path:
    """The kubectl of the cluster's own version."""
    return build(KUBERNETES) / "kubectl"


def helm() -> Path:
    """The helm program."""
    return build(HELM) / "helm"


def registry() -> Path:
    """The OCI registry of the tests: CNCF distribution."""
    return build(REGISTRY) / REGISTRY.name


def versitygw() -> Path:
    """The S3 server of the tests."""
    return build(VERSITYGW) / VERSITYGW.name


def _build(module: GoModule, target: Path) -> None:
    if shutil.which("go") is None:
        raise LocalKubeError("Go is not installed: version 1.26 is needed to build the cluster's programs")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    started = time.monotonic()
    say(f"building {module.name} from its Go modules (once; minutes on a cold cache) ...")
    command = ["nice", "go", "build", "-trimpath", "-ldflags", f"-s -w {module.ldflags}".strip(), "-o", f"{target}/"]
    process = subprocess.Popen(
        [*command, *module.packages], cwd=module.folder, env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": ""}
    )
    while True:
        try:
            code = process.wait(timeout=30)
            break
        except subprocess.TimeoutExpired:
            say(f"building {module.name}: {time.monotonic() - started:.0f} s so far")
    if code != 0:
        raise LocalKubeError(f"go build of {module.name} failed with exit code {code}; its output is above")
    if module is KUBERNETES:
        for name in (
            "etcd",
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kubelet",
            "kube-proxy",
            "kubectl",
        ):
            (target / name).symlink_to(module.name)
    (target / ".complete").touch()
    say(f"building {module.name}: {time.monotonic() - started:.0f} s")
