"""A thousand adapters through 64 slots: nothing fails, and memory stays within its budgets; bench/results/many.json.

Model S, adapters of rank 8, all registered, then asked in turn, twice, 64 requests at a time; so each request's adapter
has to be copied into a slot first. Host memory for adapters is kept so small that most come from disk each time. The
answers of the second turn must be those of the first. `memory_over_budget` is what the process grew by, from the loaded
base on, over what it may take: slots, host memory, keys and values. Run it as `make bench`.
"""

import random
import sys
import time
from pathlib import Path

from bench import models
from bench.peers import motet_engine
from bench.peers.protocol import Options, Stages
from bench.results import write

COUNT, SLOTS, RANK, PROMPT, NEW = 1000, 64, 8, 16, 4
HOST_MIB, KV_MIB = 32, 64


def resident_bytes() -> int:
    """Memory that this process has, files that it maps included."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(fields["VmRSS"].split()[0]) << 10


def main() -> None:
    """Measure, print and write bench/results/many.json."""
    motet_engine.HOST_BYTES, motet_engine.KV_BYTES = HOST_MIB << 20, KV_MIB << 20
    adapters = models.adapters("S", COUNT, RANK)
    engine = motet_engine.MotetEngine(Options(models.model("S"), {}, SLOTS, RANK, True), Stages())
    engine.ready()
    draw = random.Random(0)
    names = list(adapters)
    prompts = [[draw.randrange(9000) for _ in range(PROMPT)] for _ in names]
    engine.batch(prompts[:SLOTS], [None] * SLOTS, NEW)
    before = resident_bytes()
    started = time.process_time()
    for name, path in adapters.items():
        engine.load(name, str(path))
    registering = time.process_time() - started
    turns = []
    spent = []
    for turn in range(2):
        answers: list[list[int]] = []
        started = time.process_time()
        for first in range(0, COUNT, SLOTS):
            rows = slice(first, first + SLOTS)
            answers += engine.batch(prompts[rows], names[rows], NEW)["tokens"]
        spent.append(time.process_time() - started)
        turns.append(answers)
        print(f"[bench] turn {turn}: {COUNT} requests in {spent[-1]:.1f} CPU s", file=sys.stderr)
    grown = resident_bytes() - before
    if turns[0] != turns[1] or any(len(row) != NEW for row in turns[0]):
        raise RuntimeError("an adapter's answers changed when it was copied into another slot")
    loads, evictions, row_bytes = engine.slot_counts()
    budget = (HOST_MIB + KV_MIB << 20) + SLOTS * RANK * row_bytes
    figures = {
        "many_adapters": COUNT,
        "many_slots": SLOTS,
        "slot_loads": loads,
        "slot_evictions": evictions,
        "register_ms": round(1000 * registering / COUNT, 2),
        "requests_per_cpu_s": round(COUNT / min(spent), 1),
        "memory_grown_mib": round(grown / 2**20, 1),
        "memory_over_budget": round(grown / budget, 3),
    }
    if grown > budget:
        raise RuntimeError(f"memory grew by {grown} bytes, beyond its budgets of {budget}: {figures}")
    write("many", figures, "one thread")


if __name__ == "__main__":
    main()
