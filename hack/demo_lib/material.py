"""The base model and the trained adapters, made once, cached, and put where the demo's volumes expect them."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from demo_lib.installation import InstallationError, place
from localkube_lib.paths import REPOSITORY

VOLUMES: Final = Path("/var/lib/motet")
"""What examples/2-storage.yaml names on the node."""


@dataclass(frozen=True, slots=True)
class Material:
    """Folders in the cache."""

    model: Path
    adapters: Path


def prepare_model() -> Path:
    """The folder of SmolLM2-135M-Instruct."""
    return Path(_last_line([sys.executable, str(REPOSITORY / "hack" / "smollm2")]))


def train_adapters(model: Path) -> Path:
    """The folder of the example adapters; minutes the first time."""
    script = REPOSITORY / "examples" / "train_adapters.py"
    return Path(_last_line([sys.executable, "-W", "ignore", str(script), "--model", str(model)]))


def put_into_volumes(material: Material) -> None:
    """Copy what is not there yet."""
    place(material.model, VOLUMES / "models" / "smollm2")
    for folder in sorted(material.adapters.glob("*/*/adapter_config.json")):
        place(folder.parent, VOLUMES / "adapters" / folder.parent.relative_to(material.adapters))


def lorax_python() -> Path:
    """The interpreter of lorax-client's own environment: it cannot share one with transformers 5."""
    return Path(_last_line([str(REPOSITORY / "hack" / "venv"), "lorax"])) / "bin" / "python"


def _last_line(command: list[str]) -> str:
    """Run a command, show its progress as it comes, and return the last line of its output."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        last = ""
        for line in process.stdout:
            if last:
                print(f"           {last}", flush=True)
            last = line.rstrip()
    if process.returncode != 0:
        raise InstallationError(f"{' '.join(command[:3])} failed with exit code {process.returncode}")
    return last
