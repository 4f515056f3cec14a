"""The command line of hack/localkube."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from localkube_lib import binaries, packages
from localkube_lib.cluster import Cluster
from localkube_lib.components import Settings
from localkube_lib.errors import LocalKubeError
from localkube_lib.hollow import ensure_hollow_nodes
from localkube_lib.paths import cache_root


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hack/localkube", description="A real Kubernetes without Docker.")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--name", default="motet", help="which cluster (default: motet)")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text, parents=[common])

    command("build", "Build all programs now (minutes, once) rather than when they are needed first.")
    up = command("up", "Start the cluster, or what is missing of it.")
    # What is not given stays as the running cluster has it, so that a bare `up` always completes one.
    up.add_argument("--hpa-sync-period", help="how often the HPA acts (default 15s, as users have)")
    up.add_argument("--audit", action="store_true", default=None, help="log every request (status --json says where)")
    up.add_argument("--gpus", type=int, help="nvidia.com/gpu capacity of the node (default 0)")
    up.add_argument(
        "--no-node", dest="node", action="store_false", default=None, help="control plane only (see hollow)"
    )
    command("down", "End the cluster; images stay.")
    status = command("status", "What runs.")
    status.add_argument("--json", action="store_true")
    command("kubeconfig", "Print the path of the administrator's kubeconfig.")
    logs = command("logs", "Print the end of the components' logs.")
    logs.add_argument("component", nargs="?")
    logs.add_argument("--lines", type=int, default=20)
    load = command("load-image", "Import an OCI or Docker archive into the node.")
    load.add_argument("archive", type=Path)
    forward = command("forward", "Forward a port of 127.0.0.1 to NAMESPACE/SERVICE:PORT or ADDRESS:PORT.")
    forward.add_argument("target")
    forward.add_argument("--local-port", type=int, default=0)
    hollow = command("hollow", "Add nodes that exist in the API only, with GPUs, for tests of scheduling and scale.")
    hollow.add_argument("--nodes", type=int, default=2)
    hollow.add_argument("--gpus", type=int, default=8)
    hollow.add_argument(
        "--start-delay", type=milliseconds, default="2s", help="until a pod there is Ready, as 500ms or 2s"
    )
    clean = command("clean", "Down, and remove the cluster's files and images.")
    clean.add_argument("--all", action="store_true", help="every cluster")
    return parser


def milliseconds(text: str) -> int:
    """A duration as on Kubernetes command lines, `500ms` or `2s`; raises ValueError."""
    if text.endswith("ms"):
        return int(text.removesuffix("ms"))
    if text.endswith("s"):
        return round(float(text.removesuffix("s")) * 1000)
    raise ValueError(text)


def _settings(cluster: Cluster, options: argparse.Namespace) -> Settings | None:
    names = ("hpa_sync_period", "audit", "gpus", "node")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if not given:
        return None
    return replace(cluster.settings() if cluster.runs() else Settings(), **given)


def _logs(cluster: Cluster, component: str | None, lines: int) -> None:
    for path in sorted(cluster.paths.logs.glob("*.log")):
        if component in (None, path.stem):
            print(f"==> {path}")
            print("\n".join(path.read_text(errors="replace").splitlines()[-lines:]))


def _status(cluster: Cluster, as_json: bool) -> int:
    status = cluster.status()
    if as_json:
        print(json.dumps(asdict(status), indent=1))
    else:
        print(f"{status.name}: {'up' if status.up else 'not up'}")
        for name, pid in status.processes.items():
            print(f"  {name:26} {pid or '-'}")
        for target, address in status.forwards.items():
            print(f"  {address:26} -> {target}")
    return 0 if status.up else 1


def _run(options: argparse.Namespace) -> int:
    cluster = Cluster(options.name)
    match options.command:
        case "build":
            packages.ensure_installed()
            for module in binaries.MODULES:
                print(binaries.build(module))
        case "up":
            cluster.up(_settings(cluster, options))
            print(cluster.kubeconfig)
        case "down":
            cluster.down()
        case "status":
            return _status(cluster, options.json)
        case "kubeconfig":
            print(cluster.kubeconfig)
        case "logs":
            _logs(cluster, options.component, options.lines)
        case "load-image":
            loaded = cluster.images().load_archive(options.archive)
            print("imported" if loaded else "there already")
        case "forward":
            print(f"127.0.0.1:{cluster.forward(options.target, options.local_port)}")
        case "hollow":
            ensure_hollow_nodes(cluster, options.nodes, options.gpus, options.start_delay)
        case "clean":
            folder = cache_root() / "localkube" / "clusters"
            folders = [path for path in sorted(folder.glob("*")) if path.is_dir()]
            names = [path.name for path in folders] if options.all else [options.name]
            for name in names:
                Cluster(name).clean()
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; errors are one line on standard error and exit code 1."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except LocalKubeError as error:
        print(f"localkube: {error}", file=sys.stderr)
        return 1
