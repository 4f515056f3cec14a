"""Where benchmarks write their figures: `bench/results/NAME.json`, with commit, machine and date."""

import json
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def write(name: str, figures: Mapping[str, float], machine: str = "", *, keep: bool = False) -> None:
    """Write the figures and print them; `machine` adds to the processor's name what else matters.

    With `keep`, figures that are in the file already and not measured now stay, and `others` says of each by which
    commit, and when, it was measured; so a long run can be split.
    """
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    document: dict[str, Any] = {
        "commit": commit.stdout.strip(),
        "machine": ", ".join(part for part in (next(names, platform.machine()), machine) if part),
        "date": datetime.now(UTC).date().isoformat(),
        "figures": dict(figures),
    }
    path = ROOT / "bench" / "results" / f"{name}.json"
    if keep and path.exists():
        document = _merged(json.loads(path.read_text()), document)
    path.write_text(json.dumps(document, indent=2) + "\n")
    print(json.dumps({"file": str(path.relative_to(ROOT)), "figures": dict(figures)}, indent=2))


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The new document, with the old figures that it does not replace."""
    origin = f"{old['commit']} {old['date']}"
    kept = {name: value for name, value in old["figures"].items() if name not in new["figures"]}
    others = {name: old.get("others", {}).get(name, origin) for name in kept}
    others = {name: run for name, run in others.items() if run != f"{new['commit']} {new['date']}"}
    new["figures"] = dict(sorted((kept | new["figures"]).items()))
    return {**new, **({"others": dict(sorted(others.items()))} if others else {})}
