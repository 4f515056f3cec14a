"""The operator as a process of its own, and what the kernel and its own counters say of it."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from bench.gateway import cpu_seconds

HEALTH_PORT, METRICS_PORT = 18080, 19090
_CALLS = re.compile(
    r'^motet_operator_api_calls_total\{code="(\d+)",resource="[^"]*",verb="(\w+)"\} (\S+)$', re.MULTILINE
)
_PASSES = re.compile(r'^motet_operator_reconciles_total\{result="(\w+)"\} (\S+)$', re.MULTILINE)


@dataclass
class Operator:
    """A running operator."""

    process: subprocess.Popen[bytes]
    started: float

    @property
    def cpu(self) -> float:
        """CPU seconds so far."""
        return cpu_seconds(self.process.pid)

    @property
    def peak_mib(self) -> float:
        """The most memory that it has had."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"^VmHWM:\s+(\d+) kB$", text, re.MULTILINE)
        assert found
        return int(found[1]) / 1024

    async def calls(self) -> dict[str, int]:
        """Calls of the API server by verb, watches left out."""
        text, found = await _page(), dict[str, int]()
        for _, verb, count in _CALLS.findall(text):
            found[verb] = found.get(verb, 0) + int(float(count))
        return found

    async def passes(self) -> dict[str, int]:
        """Passes by result."""
        return {result: int(float(count)) for result, count in _PASSES.findall(await _page())}

    def stop(self) -> None:
        """End it as Kubernetes would."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start(kubeconfig: Path, log: Path, profile: Path | None = None) -> Operator:
    """Start it. With `profile`, under cProfile, which writes its statistics there at the end."""
    program = ["-m", "cProfile", "-o", str(profile), "-m", "motet_operator"] if profile else ["-m", "motet_operator"]
    ports = ["--health-port", str(HEALTH_PORT), "--metrics-port", str(METRICS_PORT)]
    command = [sys.executable, *program, "run", "--kubeconfig", str(kubeconfig), *ports]
    with log.open("ab") as output:
        return Operator(subprocess.Popen(command, stdout=output, stderr=output, env=os.environ), time.monotonic())


async def until_started(operator: Operator, seconds: float = 60) -> None:
    """Wait until it says that it is ready."""
    async with asyncio.timeout(seconds), aiohttp.ClientSession() as session:
        while True:
            if operator.process.poll() is not None:
                raise RuntimeError(f"the operator ended with {operator.process.returncode}")
            try:
                async with session.get(f"http://127.0.0.1:{HEALTH_PORT}/readyz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.2)


async def _page() -> str:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{METRICS_PORT}/metrics", raise_for_status=True) as answer,
    ):
        return await answer.text()
