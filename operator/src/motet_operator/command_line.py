"""The command line: one function for each subcommand, and what all of them have in common."""

import argparse
import math
from pathlib import Path

from motet_operator.adapter_options import add_adapter_options, service_name
from motet_operator.installation_options import add_installation_options
from motet_operator.json_logs import FORMATS
from motet_operator.running.lease import LeaseName
from motet_operator.store.options import add_store_options


def make_parser() -> argparse.ArgumentParser:
    """The parser of `motet-operator`."""
    parser = argparse.ArgumentParser(prog="motet-operator", description="The control plane of Motet.")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_run(commands.add_parser("run", help="reconcile ModelDeployments and LoraAdapters"))
    _add_metrics_api(commands.add_parser("metrics-api", help="serve custom.metrics.k8s.io"))
    add_store_options(commands.add_parser("store", help="fetch, verify and serve adapters and bases"))
    for command in commands.choices.values():
        _add_common(command)
    return parser


def _add_common(command: argparse.ArgumentParser) -> None:
    command.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    command.add_argument("--metrics-port", type=int, default=9090, help="/metrics")
    command.add_argument("--kubeconfig", type=Path, help="instead of the pod's own service account")
    command.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    command.add_argument("--log-format", default="json", choices=FORMATS)


def _add_run(command: argparse.ArgumentParser) -> None:
    add_installation_options(command)
    add_adapter_options(command)
    command.add_argument("--namespace", action="append", default=[], help="watch this one only; may be repeated")
    command.add_argument("--health-port", type=int, default=8080, help="/livez and /readyz")
    command.add_argument("--admin-port", type=int, default=9091, help="/debug/keys, on --admin-host only")
    command.add_argument("--admin-host", default="127.0.0.1", help="the page has no password: keep it to this pod")
    command.add_argument(
        "--lease",
        type=lease_name,
        metavar="NAMESPACE/NAME",
        help="work only while holding this Lease; without it, this process believes that it is the only one",
    )
    command.add_argument(
        "--resync-seconds",
        type=_positive,
        default=600.0,
        help="list the names of everything, and look at every key, about this often",
    )
    command.add_argument(
        "--api-qps", type=_positive, default=500.0, help="calls of the API server a second, watches left out"
    )
    command.add_argument("--api-burst", type=_count, default=1000, help="calls at once after a quiet time")
    command.add_argument(
        "--condition-metrics-limit",
        type=_count_or_none,
        default=20_000,
        help="series of motet_condition; objects beyond are left out, and counted",
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


def lease_name(text: str) -> LeaseName:
    """Read NAMESPACE/NAME. Raises: ArgumentTypeError."""
    return LeaseName(*service_name(text))


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _count_or_none(text: str) -> int:
    return 0 if text == "0" else _count(text)
