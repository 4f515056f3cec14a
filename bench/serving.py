"""The runtime's HTTP server under load: open loop, Poisson arrivals, latency percentiles; bench/results/serving.json.

The real server on model M with one compute thread; prompts of 64 tokens, 32 new tokens, an adapter drawn for each
request, streamed. Three questions:

- At 60% of what the engine can do, how long does a request take (`p50_s`, `p95_s`, `p99_s`, `first_token_p95_s`)?
- What do 200 adapters that are loaded meanwhile add to the p95 of the others (`loading_p95_ratio`)? Both phases have
  the same arrivals, so that they differ by the loading only, and take turns.
- What does the engine's thread lose to the server around it: requests per CPU second, all 64 at once, over those of the
  engine's bare loop (`thread_over_bare`)? A process of its own for the engine could win back no more than the rest.
"""

import asyncio
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp

from bench import models
from bench.batches import prompts
from bench.process import SOURCES, Process, Setup
from bench.results import ROOT, write

PORT, ADMIN_PORT = 18580, 18581
PROMPT, NEW, SERVED, LOADED, RANK = 64, 32, 16, 200, 8
PHASE_SECONDS, PHASES, LOAD_SHARE, AT_ONCE = 40.0, 2, 0.6, 64
ADMIN, SERVING = f"http://127.0.0.1:{ADMIN_PORT}", f"http://127.0.0.1:{PORT}"


class Server:
    """The server as a process."""

    def __init__(self, folder: Path) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(ROOT / source) for source in SOURCES),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "motet_runtime", "serve", "--model", str(models.model("M")), "--threads", "1"]
        options = ["--host", "127.0.0.1", "--port", str(PORT), "--admin-port", str(ADMIN_PORT)]
        budgets = ["--max-batch-size", "64", "--adapter-slots", "64", "--kv-memory", "2048", "--max-rank", str(RANK)]
        ends = ["--adapter-cache", str(folder), "--log-level", "warning", "--drain-grace-seconds", "0"]
        self.process = subprocess.Popen([*command, *options, *budgets, *ends], env=environment)

    def cpu_seconds(self) -> float:
        """Of all its threads."""
        return time.clock_gettime((~self.process.pid << 3) | 2)

    def stop(self) -> None:
        """End it."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()


async def put(session: aiohttp.ClientSession, adapters: dict[str, Path], wait: bool) -> None:
    """Declare the adapters; with `wait`, until all are resident."""
    document = {"adapters": [{"id": f"{name}@v1", "uri": f"file://{path}"} for name, path in adapters.items()]}
    for _ in range(2400):
        async with session.put(f"{ADMIN}/motet/v1/adapters", json=document) as answer:
            body = await answer.json()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {body}")
        resident = sum(row["reason"] == "Resident" for row in body["adapters"])
        if not wait or resident == len(adapters):
            return
        await asyncio.sleep(0.1)
    raise RuntimeError("the adapters did not become resident")


async def request(session: aiohttp.ClientSession, model: str, text: str) -> tuple[float, float]:
    """One streamed completion; seconds to the first token and to the last."""
    body = {"model": model, "prompt": text, "max_tokens": NEW, "ignore_eos": True, "temperature": 0, "stream": True}
    started = time.monotonic()
    first = None
    async with session.post(f"{SERVING}/v1/completions", json=body) as answer:
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {await answer.text()}")
        async for line in answer.content:
            if line.startswith(b"data: {") and first is None:
                first = time.monotonic() - started
            if line.startswith(b"data: {") and b'"error"' in line:
                raise RuntimeError(line.decode())
    return first or 0.0, time.monotonic() - started


async def phase(
    session: aiohttp.ClientSession, names: Sequence[str], rate: float, seed: int, kind: str
) -> tuple[list[float], list[float]]:
    """Poisson arrivals at `rate` a second; seconds to first token and to the end of each request.

    Phases of one seed have the same arrivals, and each `kind` texts of its own: else the prefix cache would have them.
    """
    draw, write_text = random.Random(seed), random.Random(f"{seed} {kind}")
    loop = asyncio.get_running_loop()
    started, at = loop.time(), 0.0
    tasks = []
    while (at := at + draw.expovariate(rate)) < PHASE_SECONDS:
        await asyncio.sleep(max(0.0, started + at - loop.time()))
        text = "".join(chr(write_text.randrange(97, 123)) for _ in range(PROMPT))
        tasks.append(asyncio.create_task(request(session, f"{draw.choice(names)}@v1", text)))
    rows = await asyncio.gather(*tasks)
    return [first for first, _ in rows], [whole for _, whole in rows]


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of the values do not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


async def measure(server: Server) -> dict[str, float]:
    """All three questions."""
    made = models.adapters("M", SERVED + LOADED * PHASES, RANK)
    names = list(made)
    served = {name: made[name] for name in names[:SERVED]}
    timeout = aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        await until_up(session, server)
        await put(session, served, wait=True)
        throughput = []
        for turn in range(4):
            texts = ["".join(map(chr, row)) for row in _readable(AT_ONCE, turn)]
            before = server.cpu_seconds()
            chosen = [f"{name}@v1" for name, _ in zip(list(served) * AT_ONCE, texts, strict=False)]
            await asyncio.gather(*(request(session, name, text) for name, text in zip(chosen, texts, strict=True)))
            throughput.append(AT_ONCE / (server.cpu_seconds() - before))
        capacity = statistics.median(throughput[1:])
        rate = LOAD_SHARE * capacity
        ratios, firsts, wholes = [], [], []
        for turn in range(PHASES):
            first, alone = await phase(session, list(served), rate, turn, "alone")
            firsts += first
            wholes += alone
            new = dict(list(made.items())[SERVED + LOADED * turn : SERVED + LOADED * (turn + 1)])
            loading = asyncio.create_task(put(session, {**served, **new}, wait=True))
            _, beside = await phase(session, list(served), rate, turn, "beside")
            if not loading.done():
                raise RuntimeError("the adapters were not loaded within the phase: make it longer")
            await loading
            await put(session, served, wait=True)
            ratios.append(percentile(beside, 0.95) / percentile(alone, 0.95))
    return {
        "requests_per_cpu_s": round(capacity, 2),
        "offered_per_s": round(rate, 2),
        "first_token_p95_s": round(percentile(firsts, 0.95), 3),
        "p50_s": round(percentile(wholes, 0.5), 3),
        "p95_s": round(percentile(wholes, 0.95), 3),
        "p99_s": round(percentile(wholes, 0.99), 3),
        "loading_p95_ratio": round(statistics.median(ratios), 3),
    }


async def until_up(session: aiohttp.ClientSession, server: Server) -> None:
    """Wait until the base is loaded."""
    for _ in range(600):
        if server.process.poll() is not None:
            raise RuntimeError("the server ended")
        try:
            async with session.get(f"{SERVING}/health") as answer:
                if answer.status == 200:
                    return
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.1)
    raise RuntimeError("the server did not start")


def _readable(count: int, turn: int) -> list[list[int]]:
    """Other prompts in every turn: else the prefix cache would have them."""
    return [[97 + token % 26 for token in row] for row in prompts("M", count, PROMPT, f"serving {turn}")]


def bare() -> float:
    """Requests per CPU second of the engine's loop alone, with the same adapters."""
    adapters = models.adapters("M", SERVED, RANK)
    setup = Setup("motet", models.model("M"), tuple(adapters.items()), ("--slots", "64", "--max-rank", str(RANK)))
    process = Process(setup)
    try:
        names: list[Any] = (list(adapters) * AT_ONCE)[:AT_ONCE]
        job = {"op": "batch", "adapters": names, "new_tokens": NEW}
        spent: list[float] = [process.ask({**job, "prompts": _readable(AT_ONCE, turn)})["cpu_s"] for turn in range(4)]
    finally:
        process.close()
    return AT_ONCE / statistics.median(spent[1:])


def main() -> None:
    """Measure, print and write bench/results/serving.json."""
    alone = bare()
    with tempfile.TemporaryDirectory(prefix="motet-bench-") as folder:
        server = Server(Path(folder))
        try:
            figures = asyncio.run(measure(server))
        finally:
            server.stop()
    figures["thread_over_bare"] = round(figures["requests_per_cpu_s"] / alone, 3)
    write("serving", figures, f"{os.cpu_count()} cores, one thread")


if __name__ == "__main__":
    main()
