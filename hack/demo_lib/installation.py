"""The product installed into a local cluster: images, then the chart by the real helm."""

import json
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from localkube_lib import binaries
from localkube_lib.cluster import Cluster
from localkube_lib.paths import REPOSITORY
from localkube_lib.project_images import PARTS, project_image

CHART: Final = REPOSITORY / "charts" / "motet"
NAMESPACE: Final = "motet-system"
RELEASE: Final = "motet"


class InstallationError(Exception):
    """helm or the cluster refused; the message is what it said."""


@dataclass(frozen=True, slots=True)
class Installation:
    """The chart's release in one cluster."""

    cluster: Cluster

    def load_images(self) -> dict[str, str]:
        """Build the three images and import them; returns each part's tag.

        The tag is taken from the image's digest, so that an upgrade rolls exactly the pods whose code changed.
        """
        store = self.cluster.images()
        tags = {}
        for part in PARTS:
            tag = project_image(part).digest.removeprefix("sha256:")[:12]
            store.load(project_image(part, tag))
            tags[part] = tag
        return tags

    def install(self, tags: Mapping[str, str], values: Mapping[str, Any] | None = None) -> None:
        """Install or upgrade the release and wait until its pods are ready.

        Raises:
            InstallationError: helm failed or the pods did not become ready.
        """
        # helm leaves CRDs alone on an upgrade; these are applied by hand, as NOTES.txt tells users to.
        self.cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CHART / "crds"))
        chosen: dict[str, Any] = {
            part: {"image": {"repository": f"motet.local/{part}", "tag": tag, "pullPolicy": "Never"}}
            for part, tag in tags.items()
        }
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(merged(chosen, values or {}), file)
            file.flush()
            self._helm(
                *("upgrade", RELEASE, str(CHART), "--install", "--namespace", NAMESPACE, "--create-namespace"),
                *("--values", file.name, "--wait", "--timeout", "3m"),
            )

    def uninstall(self) -> None:
        """Remove the release; its CRDs and objects stay."""
        self._helm("uninstall", RELEASE, "--namespace", NAMESPACE, "--wait")

    def gateway_url(self) -> str:
        """The gateway's address on the host's loopback."""
        port = self.cluster.forward(f"{NAMESPACE}/{RELEASE}-gateway:80")
        return f"http://127.0.0.1:{port}"

    def _helm(self, *arguments: str) -> None:
        command = [str(binaries.helm()), f"--kubeconfig={self.cluster.kubeconfig}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        if done.returncode != 0:
            pods = self.cluster.kubectl("get", "pods", "-n", NAMESPACE, "-o", "wide", check=False)
            raise InstallationError(f"helm {arguments[0]}: {done.stderr.strip()}\n{pods}")


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Values laid over values, key by key, as helm does."""
    result = dict(below)
    for key, value in above.items():
        lower = result.get(key)
        result[key] = merged(lower, value) if isinstance(lower, Mapping) and isinstance(value, Mapping) else value
    return result


def place(source: Path, target: Path) -> None:
    """Put a folder where a hostPath volume expects it, readable by every user; whole or not at all."""
    stamp = target.with_name(f".{target.name}.source")
    if target.exists() and stamp.exists() and stamp.read_text() == str(source.resolve()):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    for command in (
        ["rm", "-rf", str(partial), str(target)],
        ["cp", "-rL", "--reflink=auto", str(source), str(partial)],
        ["chmod", "-R", "a+rX", str(partial)],
        ["mv", str(partial), str(target)],
    ):
        subprocess.run(command, check=True)
    stamp.write_text(str(source.resolve()))
