"""Up and down: idempotent, thorough, and blind to what is not theirs."""

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
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
from tests.waiting import eventually

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
    groups = [str(path / paths.netns) for path in cgroups.hierarchies() if (path / paths.netns).exists()]
    links = [str(path) for path in Path("/var/log").glob("containers/*") if str(paths.root) in str(path.readlink())]
    return processes + mounts + groups + links + ([paths.netns] if netns.exists(paths.netns) else [])


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


@pytest.mark.parametrize("component", ["kube-scheduler", "kubelet", "containerd", "kube-apiserver", "etcd"])
def test_what_died_is_started_again(cluster: Cluster, component: str) -> None:
    before = cluster.status().processes
    cluster.processes.stop(component, grace=0.5)
    assert not cluster.status().up
    cluster.up()
    after = cluster.status()
    assert after.up
    assert {name for name in before if before[name] != after.processes[name]} == {component}
    path = "jsonpath={.status.allocatable['nvidia\\.com/gpu']}"
    # kubelet sets to zero what it does not know when it registers; the pods' view follows within its next report.
    eventually(lambda: cluster.kubectl("get", "node", "node-0", "-o", path), lambda gpus: gpus == "2", 15)


def test_pods_outlive_the_node_components(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=deployment("web", SERVE))
    cluster.kubectl("rollout", "status", "-n", namespace, "deployment/web", "--timeout=60s")
    path = "jsonpath={.items[0].metadata.uid} {.items[0].status.containerStatuses[0].containerID}"
    seen = cluster.kubectl("get", "pods", "-n", namespace, "-o", path)
    for component in ("kubelet", "containerd"):
        cluster.processes.stop(component)
    cluster.up()
    cluster.kubectl("wait", "-n", namespace, "pod", "-l", "app=web", "--for=condition=Ready", "--timeout=30s")
    assert cluster.kubectl("get", "pods", "-n", namespace, "-o", path) == seen


def test_without_a_node_there_is_a_control_plane_and_nothing_else() -> None:
    cluster = Cluster("lk-bare")
    try:
        cluster.down()
        cluster.up(Settings(node=False))
        status = cluster.status()
        assert status.up
        assert not {"containerd", "kubelet", "kube-proxy", "dns"} & set(status.processes)
        assert cluster.kubectl("get", "nodes", "-o", "name") == ""
        with pytest.raises(LocalKubeError, match="is not up"):
            cluster.images()
        cluster.processes.stop("kube-scheduler")
        assert not cluster.status().up
        cluster.up()
        assert cluster.status().up
    finally:
        cluster.clean()
    assert _traces("lk-bare") == []


def test_audit_log_counts_writes_and_lost_mounts_mean_a_fresh_start() -> None:
    cluster = Cluster("lk-audit")
    try:
        cluster.down()
        cluster.up(Settings(audit=True))
        cluster.kubectl("create", "configmap", "counted", "--from-literal=a=b")
        assert _writes(cluster, "counted") == ["create"]
        # Whoever joins the node's mounts later would find others than containerd's: this cannot be completed.
        cluster.processes.stop("mount-holder")
        cluster.up()
        assert cluster.status().up
        assert "counted" not in cluster.kubectl("get", "configmaps", "-o", "name")
        assert _writes(cluster, "counted") == [], "a fresh cluster has a fresh log"
    finally:
        cluster.clean()
    assert _traces("lk-audit") == []
    assert not cluster.paths.root.exists()


def _writes(cluster: Cluster, name: str) -> list[str]:
    log = cluster.status().audit_log
    assert log is not None
    events = [json.loads(line) for line in Path(log).read_text().splitlines()]
    named = [event for event in events if event.get("objectRef", {}).get("name") == name]
    return [event["verb"] for event in named if event["verb"] not in {"get", "list", "watch"}]


def test_two_commands_at_once_do_not_meet(cluster: Cluster) -> None:
    cluster.processes.stop("kube-proxy")
    with ThreadPoolExecutor(2) as pool:
        ups = [pool.submit(Cluster("lk-test").up) for _ in range(2)]
        for up in ups:
            up.result(timeout=60)
    assert cluster.status().up
    lines = [path for path in Path("/proc").glob("[0-9]*/cmdline") if b"/kube-proxy\0" in _content(path)]
    assert len([path for path in lines if b"/lk-test/" in _content(path)]) == 1


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
