"""Ends a cluster: processes by record, then whatever else lives in its namespaces and control groups, then those."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from localkube_lib import cgroups, netns, node
from localkube_lib.console import say, step
from localkube_lib.errors import LocalKubeError
from localkube_lib.paths import ClusterPaths
from localkube_lib.processes import ProcessTable


def tear_down(paths: ClusterPaths, processes: ProcessTable) -> None:
    """End everything of this cluster; keep images, certificates and logs.

    Raises:
        LocalKubeError: something could not be ended; the message names it.
    """
    if not processes.records() and not netns.exists(paths.netns):
        cgroups.remove(paths.netns)
        say(f"cluster {paths.name} is down already")
        return
    with step(f"taking cluster {paths.name} down"):
        for name in [record.name for record in processes.records() if record.name.startswith(("forward-", "kwok"))]:
            processes.stop(name)
        for name in ("dns", "kubelet", "kube-proxy", "kube-scheduler", "kube-controller-manager"):
            processes.stop(name)
        stuck = cgroups.remove(paths.netns)
        holder = processes.find("mount-holder")
        containerd = processes.find("containerd")
        if holder and containerd:
            # The client beside that very server, which need not be the one that would be built today.
            server = next(Path(word) for word in containerd.argv if word.endswith("/containerd"))
            _forget_containers(server.with_name("ctr"), paths, node.enter(paths, holder))
        processes.stop("containerd")
        if holder:
            mount_namespace = _namespace(holder.pid, "mnt")
            _end_all(lambda pid: pid != holder.pid and _namespace(pid, "mnt") == mount_namespace)
        processes.stop("mount-holder", grace=1.0)
        processes.stop("kube-apiserver")
        processes.stop("etcd")
        if netns.exists(paths.netns):
            inode = (Path("/run/netns") / paths.netns).stat().st_ino
            _end_all(lambda pid: _namespace(pid, "net") == f"net:[{inode}]")
        netns.remove(paths.netns)
        for folder in (paths.run, paths.etcd, paths.kubelet):
            shutil.rmtree(folder, ignore_errors=True)
        stuck = stuck and cgroups.remove(paths.netns)
    if stuck:
        raise LocalKubeError(f"control groups could not be removed: {', '.join(map(str, stuck))}")


def _forget_containers(ctr: Path, paths: ClusterPaths, inside: list[str]) -> None:
    """Remove the ended containers' records and snapshots, so that the next kubelet does not meet them."""
    command = [*inside, str(ctr), "--address", str(node.containerd_socket(paths)), "--namespace", "k8s.io"]
    listed = subprocess.run(
        [*command, "containers", "ls", "-q"], capture_output=True, text=True, check=False, timeout=30
    )
    for container in listed.stdout.split():
        for verb in (["tasks", "delete", "--force"], ["containers", "delete"]):
            subprocess.run([*command, *verb, container], capture_output=True, check=False, timeout=30)


def _namespace(pid: int, kind: str) -> str | None:
    try:
        return str(Path(f"/proc/{pid}/ns/{kind}").readlink())
    except OSError:
        return None


def _end_all(belongs: Callable[[int], bool], seconds: float = 10.0) -> None:
    """SIGKILL every process that belongs, until none is left."""
    deadline = time.monotonic() + seconds
    while True:
        pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
        left = [pid for pid in pids if pid != os.getpid() and belongs(pid)]
        if not left:
            return
        if time.monotonic() > deadline:
            raise LocalKubeError(f"processes {left} do not end")
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
