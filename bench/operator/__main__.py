"""What the operator costs at 10,000 LoraAdapters over 200 ModelDeployments, and how that grows from a tenth of it.

A real control plane, hollow nodes whose pods are Ready by themselves, and one process that answers for all their
runtimes; the operator is a process as in its image. Each number of objects gets a fresh cluster. docs/scale.md says how
to read the figures, which go to bench/results/operator.json. Run it as `make bench-operator`, or `python -m
bench.operator`.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.operator.measure import Figures
from bench.operator.objects import NAMESPACE, Size
from bench.results import ROOT, write
from localkube_lib import netns
from localkube_lib.cluster import Cluster
from localkube_lib.components import Settings
from localkube_lib.hollow import ensure_hollow_nodes

CLUSTER = "bench-operator"
SMALL, LARGE = Size(1_000, 20), Size(10_000, 200)
NODES = 4
"""A node's pods get addresses from a /24."""
POD_START_MS = 500
POD_ADDRESSES = ("10.244.0.0/16", "10.245.0.0/16")
"""Those that the controller manager gives to nodes, and kwok's own."""
IDLE_SECONDS, EDITS = 150, 60


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A fresh cluster that knows our kinds, whose pods' addresses all lead to the loopback."""
    one = Cluster(CLUSTER)
    one.down()
    one.up(Settings(node=False))
    try:
        ensure_hollow_nodes(one, NODES, gpus=0, start_delay_ms=POD_START_MS)
        for addresses in POD_ADDRESSES:
            one.run_inside("ip", "route", "add", "local", addresses, "dev", "lo")
        one.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
        one.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        one.kubectl("create", "namespace", NAMESPACE)
        yield one
    finally:
        one.down()


def measure(size: Size, idle_seconds: float, edits: int, profile: Path | None) -> Figures:
    """The figures of one number of objects, taken inside a fresh cluster's network namespace."""
    with cluster() as one:
        log = one.paths.logs / "operator.log"
        options = {
            "adapters": size.adapters,
            "models": size.models,
            "idle-seconds": idle_seconds,
            "edits": edits,
            "pki": one.paths.pki,
            "kubeconfig": one.inside_kubeconfig(),
            "log": log,
            **({"profile": profile} if profile else {}),
        }
        words = [f"--{name}={value}" for name, value in options.items()]
        command = [*netns.enter(one.paths.netns), sys.executable, "-m", "bench.operator.measure", *words]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            tail = "\n".join(log.read_text().splitlines()[-20:]) if log.exists() else ""
            raise RuntimeError(f"measuring failed; the operator's last lines, of {log}:\n{tail}")
        figures: Figures = json.loads(done.stdout.splitlines()[-1])
        return figures


def growth(small: Figures, large: Figures) -> float:
    """Slope of CPU seconds over objects, both as logarithms; what a start costs without objects is taken off first."""
    spent = [figures["cpu_s"] - figures["start_cpu_s"] for figures in (small, large)]
    return math.log(spent[1] / spent[0]) / math.log(LARGE.adapters / SMALL.adapters)


def main() -> None:
    """Measure and write the figures; with `--only`, print those of one number of objects."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", metavar="ADAPTERS/MODELS", help="one number of objects; writes no file")
    parser.add_argument("--idle-seconds", type=float, default=IDLE_SECONDS)
    parser.add_argument("--edits", type=int, default=EDITS)
    parser.add_argument("--profile", type=Path, help="with --only: cProfile's statistics of the operator go here")
    options = parser.parse_args()
    if options.only:
        adapters, _, models = options.only.partition("/")
        figures = measure(Size(int(adapters), int(models)), options.idle_seconds, options.edits, options.profile)
        print(json.dumps(figures, indent=2))
        return
    small = measure(SMALL, 0, 0, None)
    large = measure(LARGE, options.idle_seconds, options.edits, None)
    named = {name: value for name, value in large.items() if name != "ready_s"}
    figures = {
        "ready_10k_s": large["ready_s"],
        "ready_1k_s": small["ready_s"],
        **named,
        "cpu_1k_s": small["cpu_s"],
        "growth_exponent": growth(small, large),
    }
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    machine = f"{os.cpu_count()} cores, which also ran the control plane; load average at the end {load}"
    write("operator", {name: round(value, 4) for name, value in figures.items()}, machine)


if __name__ == "__main__":
    main()
