"""Debian packages that the cluster needs on the machine."""

import shutil
import subprocess

from localkube_lib.console import step
from localkube_lib.errors import LocalKubeError

PROGRAMS = {
    "conntrack": "conntrack",
    "ip": "iproute2",
    "nft": "nftables",
    "nsenter": "util-linux",
    "openssl": "openssl",
    "runc": "runc",
    "sysctl": "procps",
}
"""Package by the program that is looked for."""


def ensure_installed() -> None:
    """Install what is missing, saying so.

    Raises:
        LocalKubeError: apt-get failed.
    """
    missing = sorted({package for program, package in PROGRAMS.items() if shutil.which(program) is None})
    if not missing:
        return
    with step(f"installing Debian packages {' '.join(missing)}"):
        for command in (
            ["apt-get", "update", "-qq"],
            ["apt-get", "install", "-qq", "-y", "--no-install-recommends", *missing],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise LocalKubeError(f"{' '.join(command)} failed: {(done.stderr or done.stdout).strip()[-2000:]}")
