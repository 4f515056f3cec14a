"""One cluster by name: up, down, status, and the few things other code asks of it (kubectl, forwards, images).

Invariant: whatever `up` starts is in the process table, the network namespace or the control group of that name, so
`down` can find and end all of it, and nothing else, whatever state `up` was interrupted in.
"""

import fcntl
import ipaddress
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from localkube_lib import binaries, cgroups, components, netns, node, packages
from localkube_lib.api import Api
from localkube_lib.certificates import Certificates
from localkube_lib.components import API_PORT, Settings
from localkube_lib.console import say, step
from localkube_lib.errors import LocalKubeError
from localkube_lib.files import write_changed
from localkube_lib.forwards import Forwards, process_name
from localkube_lib.images import ImageStore, pause_image
from localkube_lib.kubeconfig import write_kubeconfig
from localkube_lib.paths import ClusterPaths
from localkube_lib.processes import PATH, ProcessTable
from localkube_lib.teardown import tear_down
from localkube_lib.waiting import wait_until

CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
NODE = ("mount-holder", "containerd", "kubelet", "kube-proxy", "dns")
_API_FORWARD = "api"


@dataclass(frozen=True, slots=True)
class Status:
    """What `status` says."""

    name: str
    up: bool
    processes: dict[str, int | None]
    kubeconfig: str
    audit_log: str | None
    forwards: dict[str, str]


class Cluster:
    """A local cluster. Cheap to make; nothing happens before a method is called."""

    def __init__(self, name: str = "motet") -> None:
        self.paths = ClusterPaths(name)
        self.processes = ProcessTable(self.paths.run, self.paths.logs)
        self._forwards = Forwards(self.processes, self.paths.netns)
        self._pki = Certificates(self.paths.pki)

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig, for use from the host."""
        return self.paths.kubeconfig

    def up(self, settings: Settings | None = None) -> None:
        """Bring the cluster up, or what is missing of it. Returns at once when all is up.

        Raises:
            LocalKubeError: a component did not come up; or the cluster is up with other settings.
        """
        with self.alone():
            settings = self._settle(settings)
            if self.status().up:
                say(f"cluster {self.paths.name} is up already")
                return
            packages.ensure_installed()
            kubernetes = binaries.build(binaries.KUBERNETES)
            if settings.node:
                binaries.build(binaries.CONTAINERD)
                binaries.build(binaries.CNI_PLUGINS)
            self._clear_remains()
            with step(f"starting cluster {self.paths.name}"):
                self._start_all(kubernetes, settings)

    def down(self) -> None:
        """End everything `up` started. Images and certificates stay. Harmless when nothing runs."""
        with self.alone():
            tear_down(self.paths, self.processes)

    def clean(self) -> None:
        """Down, and remove everything of this name."""
        with self.alone():
            tear_down(self.paths, self.processes)
            shutil.rmtree(self.paths.root, ignore_errors=True)

    def status(self) -> Status:
        """What runs."""
        node_processes = NODE if self.settings().node else ()
        names = (*CONTROL_PLANE, *node_processes, process_name(_API_FORWARD))
        found = {name: self.processes.find(name) for name in names}
        return Status(
            name=self.paths.name,
            up=all(found.values()) and (self.paths.run / "ready").exists(),
            processes={name: record.pid if record else None for name, record in found.items()},
            kubeconfig=str(self.kubeconfig),
            audit_log=str(self.paths.audit_log) if self.settings().audit else None,
            forwards={key: f"127.0.0.1:{port}" for key, port in self._forwards.ports().items()},
        )

    def runs(self) -> bool:
        """Whether any part of the control plane does."""
        return any(self.processes.find(name) for name in CONTROL_PLANE)

    def settings(self) -> Settings:
        """What the last `up` was told."""
        path = self.paths.root / "settings.json"
        return Settings(**json.loads(path.read_text())) if path.exists() else Settings()

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True, timeout: float = 120) -> str:
        """Run kubectl against this cluster; returns its standard output.

        Raises:
            LocalKubeError: it failed and `check` is true; the message is what it printed.
        """
        command = [str(binaries.kubectl()), f"--kubeconfig={self.kubeconfig}", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=timeout)
        if check and done.returncode != 0:
            raise LocalKubeError(f"kubectl {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout if check or done.returncode == 0 else done.stdout + done.stderr

    def run_inside(self, *command: str, timeout: float = 60) -> str:
        """Run a command in the cluster's network namespace; returns its output."""
        done = subprocess.run(
            [*netns.enter(self.paths.netns), *command], capture_output=True, text=True, check=False, timeout=timeout
        )
        if done.returncode != 0:
            raise LocalKubeError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def forward(self, target: str, local_port: int = 0) -> int:
        """Forward a port of the host's loopback to `NAMESPACE/SERVICE:PORT` or `ADDRESS:PORT`; returns the port.

        A second call for the same target returns the same port.
        """
        with self.alone():
            return self._forwards.ensure(target, self._address(target), local_port)

    def inside_kubeconfig(self) -> Path:
        """An administrator's kubeconfig for a process inside the cluster's network namespace."""
        path = self.paths.config / "inside.kubeconfig"
        write_kubeconfig(path, f"https://127.0.0.1:{API_PORT}", self._pki, "admin")
        return path

    def images(self) -> ImageStore:
        """The images that the node holds."""
        holder = self.processes.find("mount-holder")
        if holder is None:
            raise LocalKubeError(f"cluster {self.paths.name} is not up")
        return ImageStore(
            binaries.build(binaries.CONTAINERD) / "ctr",
            node.containerd_socket(self.paths),
            self.paths.containerd,
            node.enter(self.paths, holder),
        )

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One command at a time changes a cluster."""
        lock = self.paths.root.with_name(f".{self.paths.name}.lock")
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"waiting for another command on cluster {self.paths.name}")
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _settle(self, settings: Settings | None) -> Settings:
        """The settings to use: those of the running cluster, which cannot be changed while it runs."""
        saved, running = self.settings(), self.runs()
        if running and settings is not None and settings != saved:
            raise LocalKubeError(f"cluster {self.paths.name} runs with {saved}; take it down to change its settings")
        return saved if running else (settings or Settings())

    def _clear_remains(self) -> None:
        """Begin anew unless what runs can be completed.

        It cannot where the network namespace is gone, or where containerd or kubelet have lost the mount namespace
        that others would have to join; nor is anything worth keeping where nothing runs, as after a restart of the
        machine.
        """
        alive = {record.name for record in self.processes.records() if record.alive()}
        lost = "mount-holder" not in alive and alive & {"containerd", "kubelet"}
        if netns.exists(self.paths.netns) and alive & {*CONTROL_PLANE, *NODE} and not lost:
            return
        if alive or self.paths.run.exists() or netns.exists(self.paths.netns):
            tear_down(self.paths, self.processes)
        shutil.rmtree(self.paths.logs, ignore_errors=True)

    def _start_all(self, kubernetes: Path, settings: Settings) -> None:
        for folder in (self.paths.run, self.paths.logs, self.paths.config, self.paths.containerd):
            folder.mkdir(parents=True, exist_ok=True)
        write_changed(self.paths.root / "settings.json", json.dumps(asdict(settings)))
        self._pki.ensure(components.NODE_IP, components.SERVICE_IP, settings.node_name)
        netns.ensure(self.paths.netns)
        cgroups.ensure(self.paths.netns)
        api = Api(self._start_api_server(kubernetes, settings), self._pki)
        if settings.node:
            self._start_runtime()
        # Its clients are started when they can be served: until then they would be refused, and back off for seconds.
        wait_until(lambda: api.get("/readyz") == b"ok", "the API server", 60)
        self._start(components.kube_controller_manager(self.paths, self._pki, settings), kubernetes)
        self._start(components.kube_scheduler(self.paths), kubernetes)
        if settings.node:
            self._start_node(kubernetes, settings)
        self._await_ready(api, settings)

    def _start_api_server(self, kubernetes: Path, settings: Settings) -> int:
        """Returns the port of the API server on the host's loopback."""
        server = f"https://{components.NODE_IP}:{API_PORT}"
        for client in ("controller-manager", "scheduler", "kubelet", "proxy"):
            write_kubeconfig(self.paths.config / f"{client}.kubeconfig", server, self._pki, client)
        (self.paths.config / "audit-policy.json").write_text(json.dumps(components.AUDIT_POLICY))
        self._start(components.etcd(self.paths), kubernetes)
        self._start(components.kube_apiserver(self.paths, self._pki, settings), kubernetes)
        port = self._forwards.ensure(_API_FORWARD, f"127.0.0.1:{API_PORT}", preferred=self._last_api_port())
        write_kubeconfig(self.kubeconfig, f"https://127.0.0.1:{port}", self._pki, "admin")
        return port

    def _start_runtime(self) -> None:
        containerd, plugins = binaries.build(binaries.CONTAINERD), binaries.build(binaries.CNI_PLUGINS)
        holder = self.processes.start("mount-holder", node.mount_holder(self.paths))
        wait_until(lambda: node.holds_mounts(holder), "the node's mount namespace", 10)
        config = node.write_containerd_config(self.paths, plugins)
        command = [*node.enter(self.paths, holder), str(containerd / "containerd"), "--config", str(config)]
        # containerd finds its shim, and runc, by PATH.
        self.processes.start("containerd", command, path=f"{containerd}:{PATH}")
        wait_until(lambda: _listens(node.containerd_socket(self.paths)), "containerd", 30)
        self.images().load(pause_image(node.PAUSE_IMAGE))

    def _start_node(self, kubernetes: Path, settings: Settings) -> None:
        holder = self.processes.find("mount-holder")
        if holder is None:
            raise LocalKubeError("the node's mount namespace is gone; run up again")
        config = node.write_kubelet_config(self.paths, self._pki)
        self._start(node.kubelet(self.paths, config, settings), kubernetes, node.enter(self.paths, holder))
        proxy = node.write_proxy_config(self.paths, settings)
        self._start(["kube-proxy", f"--config={proxy}"], kubernetes)
        self.processes.start("dns", [*netns.enter(self.paths.netns), *node.dns(self._pki)])

    def _start(self, argv: Sequence[str], folder: Path, inside: Sequence[str] = ()) -> None:
        prefix = inside or netns.enter(self.paths.netns)
        self.processes.start(argv[0], [*prefix, str(folder / argv[0]), *argv[1:]])

    def _await_ready(self, api: Api, settings: Settings) -> None:
        if settings.node:
            self._await_node(api, settings)
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        wait_until(lambda: api.get(account) is not None, "the default ServiceAccount", 60)
        (self.paths.run / "ready").touch()
        ended = [name for name, pid in self.status().processes.items() if pid is None]
        if ended:
            raise LocalKubeError(f"{', '.join(ended)} ended by itself; see 'hack/localkube logs'")

    def _await_node(self, api: Api, settings: Settings) -> None:
        kubelet = self.processes.find("kubelet")
        started = int(kubelet.started_at()) if kubelet else 0
        path = f"/api/v1/nodes/{settings.node_name}"
        # A heartbeat older than kubelet is that of its predecessor.
        wait_until(lambda: _is_ready(api.read(path), started), "the node", 90)
        if settings.gpus:
            # kubelet keeps a capacity that it does not know, but sets it to zero when it registers.
            patch = [{"op": "add", "path": "/status/capacity/nvidia.com~1gpu", "value": str(settings.gpus)}]
            options = ("--subresource=status", "--type=json", f"-p={json.dumps(patch)}")
            self.kubectl("patch", "node", settings.node_name, *options)

    def _last_api_port(self) -> int:
        """The port of the last `up`, so that a kubeconfig somebody copied goes on working."""
        if not self.kubeconfig.exists():
            return 0
        server: str = json.loads(self.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
        return int(server.rpartition(":")[2])

    def _address(self, target: str) -> str:
        """`ADDRESS:PORT` of a forward's target."""
        host, _, port = target.rpartition(":")
        if not port.isdecimal():
            raise LocalKubeError(f"{target!r}: write NAMESPACE/SERVICE:PORT or ADDRESS:PORT")
        if "/" in host:
            namespace, _, service = host.partition("/")
            host = self.kubectl("get", "service", service, "-n", namespace, "-o", "jsonpath={.spec.clusterIP}").strip()
        try:
            ipaddress.ip_address(host)
        except ValueError as error:
            raise LocalKubeError(f"{target!r}: no address to forward to ({host or 'none'})") from error
        return f"{host}:{port}"


def _listens(path: Path) -> bool:
    """Whether somebody listens; the file alone may be what an ended process left."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    return True


def _is_ready(object_: dict[str, Any] | None, since: int) -> bool:
    conditions = (object_ or {}).get("status", {}).get("conditions", [])
    return any(
        condition["type"] == "Ready"
        and condition["status"] == "True"
        and datetime.fromisoformat(condition["lastHeartbeatTime"]).timestamp() >= since
        for condition in conditions
    )
