"""Up and down: idempotent, thorough, and blind to what is not theirs."""

import subprocess
from pathlib import Path

import pytest

from localkube_lib import cgroups, netns
from localkube_lib.base_image import python_image
from localkube_lib.cluster import Cluster
from localkube_lib.components import Settings
from localkube_lib.errors import LocalKubeError
from localkube_lib.paths import ClusterPaths
from localkube_lib.processes import ProcessRecord, ProcessTable, start_ticks
from tests.localkube.manifests import SERVE, deployment

pytestmark = pytest.mark.localkube


def _traces(name: str) -> list[str]:
    """What of a cluster is left on the machine: processes, mounts, namespaces, control groups."""
    paths = ClusterPaths(name)
    processes = [
        path.parent.name
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if str(paths.root).encode() in _content(path) and b"pytest" not in _content(path)
    ]
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if str(paths.root) in line]
    groups = [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{paths.netns}")]
    return processes + mounts + groups + ([paths.netns] if netns.exists(paths.netns) else [])


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_up_and_down_twice_leave_nothing_behind() -> None:
    cluster = Cluster("lk-life")
    cluster.down()
    assert _traces("lk-life") == []
    cluster.up(Settings())
    pids = cluster.status().processes
    cluster.up(Settings())
    assert cluster.status().processes == pids, "a second up starts nothing anew"
    with pytest.raises(LocalKubeError, match="take it down to change its settings"):
        cluster.up(Settings(gpus=1))
    cluster.images().load(python_image())
    cluster.kubectl("apply", "-f", "-", stdin=deployment("web", SERVE, replicas=2))
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert cgroups.members(cluster.paths.netns)
    assert _traces("lk-life") != []

    cluster.down()
    assert _traces("lk-life") == []
    cluster.down()

    cluster.up(Settings())
    assert "motet.local/python:3.11" in cluster.images().digests(), "images survive down"
    assert cluster.kubectl("get", "deployments", "-A", "-o", "name") == "", "objects do not"
    cluster.down()
    assert _traces("lk-life") == []


def test_half_dead_cluster_is_repaired(cluster: Cluster) -> None:
    cluster.processes.stop("kube-scheduler")
    assert not cluster.status().up
    cluster.up()
    assert cluster.status().up


def test_recycled_pid_is_never_ended(tmp_path: Path) -> None:
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        ticks = start_ticks(bystander.pid)
        assert ticks is not None
        table = ProcessTable(tmp_path / "run", tmp_path / "logs")
        table.start("worker", ["sleep", "600"])
        table.stop("worker")
        stale = ProcessRecord("worker", bystander.pid, ticks + 1, ("sleep", "600"))
        assert not stale.alive()
        assert ProcessRecord("worker", bystander.pid, ticks, ("sleep", "600")).alive()
        (tmp_path / "run" / "worker.process.json").write_text(
            f'{{"name": "worker", "pid": {bystander.pid}, "start_ticks": {ticks + 1}, "argv": []}}'
        )
        table.stop("worker")
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_names_that_cannot_be_namespaces_are_refused() -> None:
    with pytest.raises(LocalKubeError, match="lower-case letters"):
        Cluster("../etc")
