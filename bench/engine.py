"""Motet's engine against PEFT, vLLM and OpenVINO GenAI; figures go to bench/results/engine.json.

`python -m bench.engine` runs everything; `python -m bench.engine mixed_m load_ms` runs a group and a single figure, and
replaces those figures only. Every engine is a process with one compute thread; see `bench.turns` for how figures arise.
"""

import argparse
import os
import sys
import time
import traceback
from collections.abc import Callable, Collection
from functools import partial

from bench import batches, single
from bench.results import write

Measure = Callable[[Collection[str], int | None], dict[str, float]]


def wider(wanted: Collection[str], rounds: int | None) -> dict[str, float]:
    """What it costs rank-8 adapters that the engine is prepared for rank 64: share of CPU seconds on top."""
    figures = batches.measure(batches.WIDE_M, batches.WIDE_M.ratios, rounds)
    ratio = figures.pop("wide_ratio_m", None)
    return {"rank_penalty": round(1 / ratio - 1, 3), **figures} if ratio else figures


GROUPS: dict[str, tuple[tuple[str, ...], Measure]] = {
    "mixed_s": (tuple(batches.MIXED_S.ratios), partial(batches.measure, batches.MIXED_S)),
    "mixed_m": (tuple(batches.MIXED_M.ratios), partial(batches.measure, batches.MIXED_M)),
    "mixed_l": (tuple(batches.MIXED_L.ratios), partial(batches.measure, batches.MIXED_L)),
    "mixed_smollm2": (tuple(batches.MIXED_SMOLLM2.ratios), partial(batches.measure, batches.MIXED_SMOLLM2)),
    "classify_m": (tuple(batches.CLASSIFY_M.ratios), partial(batches.measure, batches.CLASSIFY_M)),
    "rank_m": (("rank_penalty",), wider),
    "panel_m": (("panel_speedup", "panel_cpu_s"), single.panel),
    "loading_m": (("load_ms", "peft_load_ms", "vllm_load_ms"), single.loading),
    "gaps_m": (("gap_ratio",), single.gaps),
    "starting_m": (tuple(single.STARTS), single.starting),
}
"""Group -> the figures that it can be asked for, and what measures them. A group's processes run side by side."""


def main() -> int:
    """Run what was asked for; 1 if any of it failed."""
    known = [name for group, (figures, _) in GROUPS.items() for name in (group, *figures)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "wanted", nargs="*", metavar="GROUP|FIGURE", help=f"of {', '.join(known)}; all if none is given"
    )
    parser.add_argument("--rounds", type=int, help="how many count; else as each group has it")
    given = parser.parse_args()
    if unknown := set(given.wanted) - set(known):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    failed = False
    for group, (figures, measure) in GROUPS.items():
        wanted = [name for name in figures if not given.wanted or {group, name} & set(given.wanted)]
        if not wanted:
            continue
        began = time.monotonic()
        try:
            measured = measure(wanted, given.rounds)
        except RuntimeError:
            traceback.print_exc()
            failed = True
            continue
        print(f"[bench] {group} took {time.monotonic() - began:.0f} s", file=sys.stderr)
        if measured:
            write("engine", measured, f"{os.cpu_count()} cores, one thread", keep=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
