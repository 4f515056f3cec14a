"""Where benchmarks write their figures: `bench/results/NAME.json`, with commit, machine and date."""

import json
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]


def write(name: str, figures: Mapping[str, float], machine: str = "") -> None:
    """Write the figures and print them; `machine` adds to the processor's name what else matters."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    document = {
        "commit": commit.stdout.strip(),
        "machine": ", ".join(part for part in (next(names, platform.machine()), machine) if part),
        "date": datetime.now(UTC).date().isoformat(),
        "figures": dict(figures),
    }
    path = ROOT / "bench" / "results" / f"{name}.json"
    path.write_text(json.dumps(document, indent=2) + "\n")
    print(path.read_text())
