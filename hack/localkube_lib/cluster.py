"""One cluster by name: up, down, status, and the few things other code asks of it (kubectl, forwards, images).

Invariant: whatever `up` starts is in the process table, the network namespace or the control group of that name, so
`down` can find and end all of it, and nothing else, whatever state `up` was interrupted in.
"""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from localkube_lib import binaries, cgroups, components, netns, node, packages
from localkube_lib.certificates import Certificates
from localkube_lib.components import API_PORT, Settings
from localkube_lib.console import say, step
from localkube_lib.errors import LocalKubeError
from localkube_lib.images import ImageStore, pause_image
from localkube_lib.kubeconfig import write_kubeconfig
from localkube_lib.paths import ClusterPaths
from localkube_lib.processes import ProcessTable
from localkube_lib.teardown import tear_down

CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
NODE = ("mount-holder", "containerd", "kubelet", "kube-proxy")


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
        settings = self._settle(settings)
        if self.status().up:
            say(f"cluster {self.paths.name} is up already")
            return
        packages.ensure_installed()
        kubernetes = binaries.build(binaries.KUBERNETES)
        containerd = binaries.build(binaries.CONTAINERD)
        plugins = binaries.build(binaries.CNI_PLUGINS)
        with step(f"starting cluster {self.paths.name}"):
            for folder in (self.paths.run, self.paths.logs, self.paths.config, self.paths.containerd):
                folder.mkdir(parents=True, exist_ok=True)
            self._pki.ensure(components.NODE_IP, components.SERVICE_IP, settings.node_name)
            netns.ensure(self.paths.netns)
            cgroups.ensure(self.paths.netns)
            self._start_control_plane(kubernetes, settings)
            self._start_node(kubernetes, containerd, plugins, settings)
            self._await_ready(settings)

    def down(self) -> None:
        """End everything `up` started. Images and certificates stay. Harmless when nothing runs."""
        containerd = binaries.build(binaries.CONTAINERD) if self.processes.find("containerd") else None
        tear_down(self.paths, self.processes, containerd)

    def clean(self) -> None:
        """Down, and remove everything of this name."""
        self.down()
        shutil.rmtree(self.paths.root, ignore_errors=True)

    def status(self) -> Status:
        """What runs."""
        names = CONTROL_PLANE + NODE + ("forward-api",)
        found = {name: self.processes.find(name) for name in names}
        forwards = {
            record.name.removeprefix("forward-"): f"127.0.0.1:{record.argv[record.argv.index('--listen') + 1]}"
            for record in self.processes.records()
            if record.name.startswith("forward-") and record.alive()
        }
        return Status(
            name=self.paths.name,
            up=all(found.values()) and (self.paths.run / "ready").exists(),
            processes={name: record.pid if record else None for name, record in found.items()},
            kubeconfig=str(self.kubeconfig),
            audit_log=str(self.paths.audit_log) if self._saved_settings().audit else None,
            forwards=forwards,
        )

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
        address = target
        if "/" in target:
            name, _, port = target.rpartition(":")
            namespace, _, service = name.partition("/")
            ip = self.kubectl("get", "service", service, "-n", namespace, "-o", "jsonpath={.spec.clusterIP}").strip()
            address = f"{ip}:{port}"
        return self._forward("forward-" + target.replace("/", "."), address, local_port)

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
            node.enter(self.paths, holder),
        )

    def _settle(self, settings: Settings | None) -> Settings:
        """The settings to use: those of the running cluster, which cannot be changed while it runs."""
        saved = self._saved_settings()
        running = any(self.processes.find(name) for name in CONTROL_PLANE)
        if running and settings is not None and settings != saved:
            raise LocalKubeError(f"cluster {self.paths.name} runs with {saved}; take it down to change its settings")
        chosen = saved if running else (settings or Settings())
        self.paths.root.mkdir(parents=True, exist_ok=True)
        (self.paths.root / "settings.json").write_text(json.dumps(asdict(chosen)))
        return chosen

    def _saved_settings(self) -> Settings:
        path = self.paths.root / "settings.json"
        return Settings(**json.loads(path.read_text())) if path.exists() else Settings()

    def _start_control_plane(self, binaries_folder: Path, settings: Settings) -> None:
        server = f"https://{components.NODE_IP}:{API_PORT}"
        for client in ("controller-manager", "scheduler", "kubelet", "proxy"):
            write_kubeconfig(self.paths.config / f"{client}.kubeconfig", server, self._pki, client)
        (self.paths.config / "audit-policy.json").write_text(json.dumps(components.AUDIT_POLICY))
        self._start(components.etcd(self.paths), binaries_folder)
        self._start(components.kube_apiserver(self.paths, self._pki, settings), binaries_folder)
        self._start(components.kube_controller_manager(self.paths, self._pki, settings), binaries_folder)
        self._start(components.kube_scheduler(self.paths), binaries_folder)
        port = self._forward("forward-api", f"127.0.0.1:{API_PORT}", self._remembered_api_port())
        write_kubeconfig(self.kubeconfig, f"https://127.0.0.1:{port}", self._pki, "admin")

    def _start_node(self, kubernetes: Path, containerd: Path, plugins: Path, settings: Settings) -> None:
        holder = self.processes.start("mount-holder", node.mount_holder(self.paths))
        inside = node.enter(self.paths, holder)
        # nsenter needs the holder's own mount namespace, which it has only once unshare has run.
        _await(
            lambda: (
                Path(f"/proc/{holder.pid}/ns/mnt").readlink() != Path("/proc/self/ns/mnt").readlink()
                and "sleep" in Path(f"/proc/{holder.pid}/cmdline").read_text()
            ),
            "the node's mount namespace",
            10,
        )
        config = node.write_containerd_config(self.paths, plugins)
        path = {"PATH": f"{containerd}:{plugins}:/usr/sbin:/usr/bin:/sbin:/bin"}
        self.processes.start("containerd", [*inside, str(containerd / "containerd"), "--config", str(config)], path)
        _await(node.containerd_socket(self.paths).exists, "containerd's socket", 20)
        self.images().load(pause_image(node.PAUSE_IMAGE))
        _await(self._api_ready, "the API server", 60)
        kubelet = node.kubelet(self.paths, node.write_kubelet_config(self.paths, self._pki), settings)
        self._start(kubelet, kubernetes, inside)
        proxy = node.write_proxy_config(self.paths, settings)
        self._start(["kube-proxy", f"--config={proxy}"], kubernetes)

    def _start(self, argv: Sequence[str], folder: Path, inside: Sequence[str] = ()) -> None:
        prefix = inside or netns.enter(self.paths.netns)
        self.processes.start(
            argv[0], [*prefix, str(folder / argv[0]), *argv[1:]], {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        )

    def _await_ready(self, settings: Settings) -> None:
        def node_ready() -> bool:
            path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
            return self.kubectl("get", "node", settings.node_name, "-o", path, check=False).strip() == "True"

        def accounts_ready() -> bool:
            return "default" in self.kubectl("get", "serviceaccount", "default", "-o", "name", check=False)

        _await(node_ready, "the node", 90)
        if settings.gpus:
            patch = [{"op": "add", "path": "/status/capacity/nvidia.com~1gpu", "value": str(settings.gpus)}]
            self.kubectl(
                "patch", "node", settings.node_name, "--subresource=status", "--type=json", f"-p={json.dumps(patch)}"
            )
        _await(accounts_ready, "the default ServiceAccount", 60)
        (self.paths.run / "ready").touch()

    def _api_ready(self) -> bool:
        return self.kubectl("get", "--raw", "/readyz", check=False).strip() == "ok"

    def _remembered_api_port(self) -> int:
        """The port of the last `up`, so that a kubeconfig somebody copied goes on working."""
        if not self.kubeconfig.exists():
            return 0
        server: str = json.loads(self.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
        port = int(server.rpartition(":")[2])
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return 0
        return port

    def _forward(self, name: str, address: str, local_port: int) -> int:
        running = self.processes.find(name)
        if running:
            return int(running.argv[running.argv.index("--listen") + 1])
        if not local_port:
            with socket.create_server(("127.0.0.1", 0)) as probe:
                local_port = probe.getsockname()[1]
        script = Path(__file__).parent / "forward.py"
        argv = ["python3", str(script), "--netns", self.paths.netns, "--listen", str(local_port), "--target", address]
        self.processes.start(name, argv)
        _await(lambda: _accepts(local_port), f"the forward to {address}", 10)
        return local_port


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _await(condition: Callable[[], bool], what: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise LocalKubeError(f"{what} did not come up within {seconds:.0f} s; see 'hack/localkube logs'")
        time.sleep(0.1)
