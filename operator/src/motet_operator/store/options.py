"""The store's part of the command line."""

import argparse
import re
from pathlib import Path

from motet_api.names import STORE_ADMIN_PORT, STORE_PORT


def add_store_options(command: argparse.ArgumentParser) -> None:
    """The flags of `motet-operator store`."""
    command.add_argument("--data", type=Path, required=True, help="a folder of its own; what is lost is fetched anew")
    command.add_argument(
        "--disk", type=byte_count, required=True, metavar="BYTES", help="what --data may take, such as 50Gi"
    )
    command.add_argument("--policy", type=Path, help="YAML; read anew when it changes. All is allowed without")
    command.add_argument("--port", type=int, default=STORE_PORT, help="manifests and blobs, for runtime pods")
    command.add_argument("--admin-port", type=int, default=STORE_ADMIN_PORT, help="for the operator")
    command.add_argument("--secrets", default="cluster", choices=["cluster", "none"], help="where credentials are")
    command.add_argument("--max-file-size", type=byte_count, default="64Gi", metavar="BYTES", help="of one file")
    command.add_argument("--max-artifact-size", type=byte_count, default="512Gi", metavar="BYTES", help="of all files")
    command.add_argument("--jobs", type=int, default=16, help="fetched at a time")
    command.add_argument("--jobs-per-host", type=int, default=4, help="fetched at a time from one host")
    command.add_argument("--grace-seconds", type=float, default=3600.0, help="nothing used since is deleted")
    command.add_argument("--keep-seconds", type=float, default=604_800.0, help="what nobody names stays this long")
    command.add_argument(
        "--fresh-seconds", type=float, default=600.0, help="a source without a digest is not asked again so soon"
    )
    command.add_argument("--claims", type=Path, help="folder with a folder for each claim of pvc://")
    command.add_argument("--file-root", type=Path, action="append", default=[], help="folder that file:// may name")
    command.add_argument("--hub-endpoint", default="https://huggingface.co", help="of hf://")
    command.add_argument(
        "--plain-http-registry", action="append", default=[], metavar="HOST:PORT", help="of oci://; may be repeated"
    )


def byte_count(text: str) -> int:
    """Read a Kubernetes quantity of bytes: digits and an optional suffix. Raises: ArgumentTypeError."""
    match = re.fullmatch(r"(\d{1,18})([kMGT]i?|Ki)?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes: write it like 500Mi or 50Gi")
    suffix = match[2] or ""
    base, power = (1024 if suffix.endswith("i") else 1000), " KMGT".find(suffix[:1].upper() or " ")
    return int(match[1]) * int(base**power)
