"""The options of `motet-operator run` that say who is asked about adapters, and by whose rules."""

import argparse
from pathlib import Path

from motet_operator.installation_options import store_url


def add_adapter_options(command: argparse.ArgumentParser) -> None:
    """Add them."""
    command.add_argument(
        "--store-admin-url",
        type=store_url,
        default="",
        help="the adapter store, as the operator reaches it; empty: as --store-url",
    )
    command.add_argument(
        "--gateway-service",
        type=service_name,
        metavar="NAMESPACE/NAME",
        help="whose pods are asked what became of requests; without it a version that has left spec goes after 10 s, "
        "and rollouts with limits wait",
    )
    command.add_argument("--policy", type=Path, help="quotas and rules by namespace, YAML; read anew when it changes")


def service_name(text: str) -> tuple[str, str]:
    """Read NAMESPACE/NAME. Raises: ArgumentTypeError."""
    namespace, slash, name = text.partition("/")
    if not (namespace and slash and name) or "/" in name:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAMESPACE/NAME")
    return namespace, name
