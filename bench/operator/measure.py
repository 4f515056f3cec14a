"""The measuring itself, for one number of objects; runs inside the cluster's network namespace.

Prints one JSON document, the figures, as the last line of its output.
"""

import argparse
import asyncio
import json
import math
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench.operator import process
from bench.operator.api import Api, connect
from bench.operator.objects import (
    ADAPTERS,
    MODELS,
    Progress,
    Size,
    make_adapters,
    make_models,
    make_version,
)
from bench.operator.process import Operator
from localkube_lib.certificates import Certificates

READY_SECONDS = 420
QUIET_SECONDS = 20
EDIT_SECONDS = 60
BETWEEN_EDITS_SECONDS = 0.5
OTHERS = frozenset({"leases", "nodes"})
"""What kwok, kubelets and leaders write by the clock, whether or not there is an operator."""

Figures = dict[str, float]


def say(text: str) -> None:
    """To whoever watches the benchmark."""
    print(f"[bench] {text}", file=sys.stderr, flush=True)


async def baseline(options: argparse.Namespace) -> float:
    """CPU seconds of an operator that finds nothing to do: interpreter, imports, first listings."""
    operator = process.start(options.kubeconfig, options.log)
    try:
        await process.until_started(operator)
        await asyncio.sleep(2)
        return operator.cpu
    finally:
        operator.stop()


async def cold_start(operator: Operator, size: Size, adapters: Progress, models: Progress) -> Figures:
    """From the process's start until the status of every object says Ready."""
    deadline = READY_SECONDS
    await adapters.until(lambda: len(adapters.ready) == size.adapters, deadline)
    at = await models.until(lambda: len(models.ready) == size.models, deadline)
    seconds, cpu = at - operator.started, operator.cpu
    calls, passes = await operator.calls(), await operator.passes()
    say(f"all ready after {seconds:.1f} s, {cpu:.1f} CPU s; calls {calls}, passes {passes}, load {os.getloadavg()}")
    counts = {f"api_requests_{verb}": float(count) for verb, count in sorted(calls.items())}
    return {"ready_s": seconds, "cpu_s": cpu, "api_requests": float(sum(calls.values())), **counts}


async def until_quiet(api: Api) -> None:
    """Wait until nothing but the clock's writes has been made for a while."""
    last, since = await _own_writes(api), time.monotonic()
    while time.monotonic() - since < QUIET_SECONDS:
        await asyncio.sleep(2)
        now = await _own_writes(api)
        if now != last:
            last, since = now, time.monotonic()


async def idle(operator: Operator, api: Api, seconds: float) -> Figures:
    """What the operator costs while nothing happens."""
    await until_quiet(api)
    writes, calls, passes = await _own_writes(api), await operator.calls(), await operator.passes()
    cpu, started = operator.cpu, time.monotonic()
    await asyncio.sleep(seconds)
    share = (operator.cpu - cpu) / (time.monotonic() - started)
    written = Counter(await _own_writes(api))
    written.subtract(writes)
    made = {verb: count - calls.get(verb, 0) for verb, count in (await operator.calls()).items()}
    passed = {result: count - passes.get(result, 0) for result, count in (await operator.passes()).items()}
    say(f"idle: {share:.4f} of a core; writes {+written}, calls {made}, passes {passed}, load {os.getloadavg()}")
    requests = sum(made.values()) / seconds
    return {
        "idle_cpu_share": share,
        "idle_writes": float((+written).total()),
        "idle_api_requests_per_s": requests,
    }


async def edits(api: Api, adapters: Progress, size: Size, count: int) -> Figures:
    """Single edits: a second version, and all of the traffic to it; until the split in effect says so."""
    took: list[float] = []
    for number in range(count):
        name = f"voice-{number * (size.adapters // count):05}"
        spec = {
            "versions": [make_version(name, "v1"), make_version(name, "v2")],
            "traffic": [{"version": "v2", "weight": 1}],
        }
        started = time.monotonic()
        await api.merge(f"{ADAPTERS}/{name}", {"spec": spec})
        served = await adapters.until(partial(serves, adapters, name), EDIT_SECONDS)
        took.append(served - started)
        await asyncio.sleep(BETWEEN_EDITS_SECONDS)
    took.sort()
    p50, p95 = took[len(took) // 2], took[math.ceil(0.95 * len(took)) - 1]
    say(f"{count} edits: p50 {p50:.3f} s, p95 {p95:.3f} s, longest {took[-1]:.3f} s, load {os.getloadavg()}")
    return {"edit_p50_s": p50, "edit_p95_s": p95}


def serves(adapters: Progress, name: str) -> bool:
    """Whether the split in effect is the edited one."""
    return adapters.traffic.get(name) == {"v2": 1}


async def measure(options: argparse.Namespace) -> Figures:
    """All figures of one number of objects."""
    size = Size(options.adapters, options.models)
    async with connect(Certificates(options.pki)) as session:
        api = Api(session)
        figures = {"start_cpu_s": await baseline(options)}
        started = time.monotonic()
        await api.create_all(MODELS, make_models(size))
        await api.create_all(ADAPTERS, make_adapters(size))
        say(f"created {size.adapters} adapters and {size.models} models in {time.monotonic() - started:.1f} s")
        adapters, models = Progress(api, ADAPTERS), Progress(api, MODELS)
        async with asyncio.TaskGroup() as group:
            following = [group.create_task(each.follow()) for each in (adapters, models)]
            await adapters.until(lambda: len(adapters.traffic) == size.adapters, READY_SECONDS)
            operator = process.start(options.kubeconfig, options.log, options.profile)
            try:
                figures |= await cold_start(operator, size, adapters, models)
                if options.idle_seconds:
                    figures |= await idle(operator, api, options.idle_seconds)
                if options.edits:
                    figures |= await edits(api, adapters, size, options.edits)
                figures["rss_mib"] = operator.peak_mib
            finally:
                operator.stop()
            for task in following:
                task.cancel()
        return figures


@contextmanager
def fake_pods() -> Iterator[None]:
    """The hollow pods' runtimes, while the block runs."""
    command = [sys.executable, "-m", "bench.operator.fake_pods"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as pods:
        assert pods.stdout
        try:
            pods.stdout.readline()
            yield
        finally:
            pods.terminate()


async def _own_writes(api: Api) -> dict[tuple[str, str], int]:
    return {key: count for key, count in (await api.writes()).items() if key[0] not in OTHERS}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--adapters", type=int, required=True)
    parser.add_argument("--models", type=int, required=True)
    parser.add_argument("--idle-seconds", type=float, default=0)
    parser.add_argument("--edits", type=int, default=0)
    parser.add_argument("--pki", type=Path, required=True, help="folder of the cluster's certificates")
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True, help="where the operator's output goes")
    parser.add_argument("--profile", type=Path, help="write cProfile's statistics of the operator here")
    options = parser.parse_args()
    with fake_pods():
        print(json.dumps(asyncio.run(measure(options))))


if __name__ == "__main__":
    main()
