"""What the gateway costs a request: CPU and time, beside asking the pod directly, in one run.

A stand-in pod that answers at once, 16 connections, short bodies and bodies of 60 kB (an hour's call). Direct and
through the gateway take turns; figures are medians over rounds. The stand-in and the load share the machine with the
gateway, so requests per second are a lower bound; CPU seconds are the gateway process's own. Run it as `make bench`.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import yaml

from bench.results import write
from tests.gateway.fake_pod import FakePod, running_pod

CONNECTIONS, REQUESTS, ROUNDS = 16, 1500, 3
BODIES = {"short": 150, "60kB": 60_000}
ADAPTER = "churn"


async def send(url: str, model: str, size: int) -> float:
    """All requests; returns requests per second."""
    body = {"model": model, "prompt": "x" * size, "max_tokens": 1}
    left = iter(range(REQUESTS))
    async with aiohttp.ClientSession() as session:

        async def worker() -> None:
            for _ in left:
                async with session.post(f"{url}/v1/completions", json=body) as answer:
                    if answer.status != 200:
                        raise RuntimeError(f"{answer.status}: {await answer.text()}")
                    await answer.read()

        started = time.monotonic()
        await asyncio.gather(*(worker() for _ in range(CONNECTIONS)))
        return REQUESTS / (time.monotonic() - started)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(pod_url: str, gateway_url: str, pid: int) -> dict[str, float]:
    """Rounds of direct and through the gateway, for each size of body."""
    figures: dict[str, float] = {}
    for name, size in BODIES.items():
        direct: list[float] = []
        through: list[float] = []
        spent: list[float] = []
        for _ in range(ROUNDS + 1):
            direct.append(await send(pod_url, f"{ADAPTER}@v1", size))
            before = cpu_seconds(pid)
            through.append(await send(gateway_url, ADAPTER, size))
            spent.append((cpu_seconds(pid) - before) / REQUESTS)
        # The first round warms up and does not count.
        figures[f"{name}_requests_per_s"] = round(statistics.median(through[1:]))
        figures[f"{name}_cpu_ms_per_request"] = round(1000 * statistics.median(spent[1:]), 3)
        ratios = [behind / alone for behind, alone in zip(through[1:], direct[1:], strict=True)]
        figures[f"{name}_through_over_direct"] = round(statistics.median(ratios), 3)
    return figures


async def ready(url: str) -> None:
    """Wait until the gateway routes."""
    async with aiohttp.ClientSession() as session:
        for _ in range(200):
            try:
                async with session.post(f"{url}/v1/completions", json={"model": ADAPTER, "prompt": "x"}) as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
    raise RuntimeError("the gateway did not begin to route")


async def main() -> None:
    """Measure, print and write bench/results/gateway.json."""
    pod = FakePod("pod-0", resident={f"{ADAPTER}@v1"}, batch=CONNECTIONS)
    async with running_pod(pod):
        with tempfile.TemporaryDirectory() as folder:
            table = {
                "models": [{"name": "tiny", "pods": [{"name": pod.name, "address": pod.address}]}],
                "adapters": [
                    {
                        "name": ADAPTER,
                        "model": "tiny",
                        "versions": ["v1"],
                        "traffic": [{"version": "v1", "weight": 1}],
                    }
                ],
            }
            path = Path(folder) / "table.yaml"
            path.write_text(yaml.safe_dump(table))
            url = "http://127.0.0.1:18480"
            command = [sys.executable, "-m", "motet_gateway", "serve", "--host", "127.0.0.1", "--port", "18480"]
            gateway = subprocess.Popen([*command, "--table", str(path), "--log-level", "error"])
            try:
                await ready(url)
                write("gateway", await measure(f"http://{pod.address}", url, gateway.pid), f"{os.cpu_count()} cores")
            finally:
                gateway.terminate()
                gateway.wait()


if __name__ == "__main__":
    asyncio.run(main())
