"""The command line: one function for each subcommand, and what all of them have in common."""

import argparse
from pathlib import Path

from motet_operator.installation_options import add_installation_options


def make_parser() -> argparse.ArgumentParser:
    """The parser of `motet-operator`."""
    parser = argparse.ArgumentParser(prog="motet-operator", description="The control plane of Motet.")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_run(commands.add_parser("run", help="reconcile ModelDeployments and LoraAdapters"))
    _add_metrics_api(commands.add_parser("metrics-api", help="serve custom.metrics.k8s.io"))
    for command in commands.choices.values():
        _add_common(command)
    return parser


def _add_common(command: argparse.ArgumentParser) -> None:
    command.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    command.add_argument("--metrics-port", type=int, default=9090, help="/metrics")
    command.add_argument("--kubeconfig", type=Path, help="instead of the pod's own service account")
    command.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])


def _add_run(command: argparse.ArgumentParser) -> None:
    add_installation_options(command)
    command.add_argument("--namespace", action="append", default=[], help="watch this one only; may be repeated")
    command.add_argument("--health-port", type=int, default=8080, help="/livez and /readyz")
    command.add_argument(
        "--resync-seconds",
        type=float,
        default=60.0,
        help="list the names of everything, and look at every key, this often",
    )


def _add_metrics_api(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--gateway-service", type=service_name, required=True, metavar="NAMESPACE/NAME", help="whose pods are asked"
    )
    command.add_argument("--port", type=int, default=6443)
    command.add_argument(
        "--tls-cert", type=Path, required=True, help="serving certificate, PEM; read anew when it changes"
    )
    command.add_argument("--tls-key", type=Path, required=True, help="its key, PEM")
    command.add_argument("--max-age-seconds", type=float, default=10.0, help="older numbers are not served")


def service_name(text: str) -> tuple[str, str]:
    """Read NAMESPACE/NAME. Raises: ArgumentTypeError."""
    namespace, slash, name = text.partition("/")
    if not (namespace and slash and name) or "/" in name:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAMESPACE/NAME")
    return namespace, name
