"""Renders the chart with the real helm."""

import json
import subprocess
import tempfile
from typing import Any

import yaml

from localkube_lib import binaries
from localkube_lib.paths import REPOSITORY

CHART = REPOSITORY / "charts" / "motet"
NAMESPACE = "motet-system"

Manifest = dict[str, Any]


def helm(*arguments: str, values: Manifest | None = None) -> subprocess.CompletedProcess[str]:
    """Run helm with values laid over the chart's own."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(values or {}, file)
        file.flush()
        command = [str(binaries.helm()), *arguments, "--values", file.name]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def render(values: Manifest | None = None, release: str = "motet") -> list[Manifest]:
    """Every object that an installation would create, CRDs left out."""
    done = helm("template", release, str(CHART), "--namespace", NAMESPACE, "--kube-version", "1.36.0", values=values)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def refusal(values: Manifest) -> str:
    """What helm says to values that it must refuse."""
    done = helm("template", "motet", str(CHART), "--kube-version", "1.36.0", values=values)
    assert done.returncode != 0, "helm took values that it should refuse"
    return done.stderr


def of_kind(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    """Objects of one kind by name."""
    return {item["metadata"]["name"]: item for item in manifests if item["kind"] == kind}


def containers(manifests: list[Manifest]) -> dict[str, Manifest]:
    """The container of every Deployment, by the Deployment's name."""
    return {
        name: item["spec"]["template"]["spec"]["containers"][0]
        for name, item in of_kind(manifests, "Deployment").items()
    }
