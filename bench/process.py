"""An engine as a process of its own, asked by the protocol of `bench.peers.protocol`."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SOURCES = ("api/src", "runtime/src", ".")
Answer = dict[str, Any]


class EngineMissingError(Exception):
    """An engine is not here to be measured; the text says why. What does not need it goes on."""


@dataclass(frozen=True, slots=True)
class Setup:
    """How an engine is started; equal set-ups share a process."""

    engine: str
    model: Path
    adapters: tuple[tuple[str, Path], ...] = ()
    flags: tuple[str, ...] = ()

    def command(self, *more: str) -> list[str]:
        """Its command line.

        Raises:
            EngineMissingError: there is no script for it, or its environment could not be made.
        """
        if not (ROOT / "bench" / "peers" / f"{self.engine}_engine.py").exists():
            raise EngineMissingError(f"bench/peers/{self.engine}_engine.py does not exist")
        named = [f"--adapters={name}={path}" for name, path in self.adapters]
        module = ["-m", f"bench.peers.{self.engine}_engine", "--model", str(self.model)]
        return [_python(self.engine), *module, *named, *self.flags, *more]


class Process:
    """A running engine. `ask` waits for the answer, so only one of several processes works at a time."""

    def __init__(self, setup: Setup) -> None:
        command = setup.command()
        self._engine = "".join((setup.engine, *setup.flags))
        print(f"[bench] starting {self._engine} on {setup.model.parent.name}", file=sys.stderr)
        self._log = (_log_folder() / f"{self._engine}.log").open("w")
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, env=_environment()
        )
        try:
            self.ask({"op": "ready"})
        except BaseException:
            self.close()
            raise

    def ask(self, job: dict[str, Any]) -> Answer:
        """Send a job and wait.

        Raises:
            RuntimeError: the job failed, or the engine ended.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin and stdout
        try:
            stdin.write(json.dumps(job) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            last = "\n".join(Path(self._log.name).read_text().splitlines()[-3:])
            raise RuntimeError(f"{self._engine} ended during {job['op']}; the last lines of {self._log.name}:\n{last}")
        answer: Answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"{self._engine} failed in {job['op']}: {answer['error']}")
        return answer

    def close(self) -> None:
        """End it: its input ends, so it does."""
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


def first_token(setup: Setup) -> list[tuple[str, float, float]]:
    """Start the engine for one token; returns its stages: name, wall and CPU seconds since process start."""
    command = setup.command("--first-token")
    log = _log_folder() / f"{setup.engine}-start.log"
    with log.open("w") as errors:
        ended = subprocess.run(
            command, check=False, stdout=subprocess.PIPE, stderr=errors, text=True, env=_environment()
        )
    if ended.returncode != 0:
        raise RuntimeError(f"{setup.engine} did not start; see {log}")
    return [(name, wall, cpu) for name, wall, cpu in json.loads(ended.stdout)["stages"]]


def _python(engine: str) -> str:
    """The interpreter of the engine's environment; PEFT and Motet have the project's own, which is this one."""
    if engine in ("motet", "peft"):
        return sys.executable
    made = subprocess.run([ROOT / "bench" / "venvs", engine], check=False, stdout=subprocess.PIPE, text=True)
    if made.returncode != 0:
        raise EngineMissingError(f"`bench/venvs {engine}` failed; see above")
    return f"{made.stdout.strip()}/bin/python"


def _environment() -> dict[str, str]:
    """One compute thread for every engine, and the checkout to import from."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    path = os.pathsep.join(str(ROOT / source) for source in SOURCES)
    return {**os.environ, **threads, "PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false"}


def _log_folder() -> Path:
    """Where engines' standard errors go: what a peer warns of would drown the table."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "motet" / "bench-logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
