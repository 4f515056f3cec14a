"""One command line and one protocol for every engine that is measured, so that a harness can let them take turns.

An engine is a process of its own: one JSON job a line on standard input, one JSON answer a line on standard output, and
everything that libraries print goes to standard error. Every answer has `cpu_s` (of the process and all its children)
and `wall_s`; an answer with `error` is a job that failed. The jobs:

    {"op": "ready"}                                    -> {}; answered once the model and the adapters are loaded
    {"op": "batch", "prompts": [[id..]..], "adapters": [name|null..], "new_tokens": n}
                                                       -> {"tokens": [[id..]..]}: greedy, all n of them
    {"op": "score", "prompts": .., "adapters": .., "token_ids": [id..]}
                                                       -> {"scores": [[log-probability of each id as the next token]..]}
    {"op": "panel", "transcript": [id..], "adapters": [name..], "suffixes": [[id..]..], "token_ids": [id..]}
                                                       -> {"scores": ..}: of input + suffix, by each adapter
    {"op": "gaps", "prompts": .., "adapters": .., "new_tokens": n, "long_prompt": [id..]}
                                                       -> {"alone": [s..], "beside": [s..]}: seconds between two tokens
                                                          of the running answers, before and while a long prompt is read
    {"op": "load", "name": .., "path": ..}             -> {}
    {"op": "evict", "name": ..}                        -> {}

With `--first-token` the process starts, answers one prompt of 16 tokens by the first adapter, prints a table of where
the time since process start went and one JSON line with the same, and ends. This module is all standard library, so
that every engine's environment can import it.
"""

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TextIO

FIRST_PROMPT = tuple(range(300, 316))
Adapters = Sequence[str | None]
Prompts = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Options:
    """What an engine is started with."""

    model: Path
    adapters: dict[str, Path]
    slots: int
    max_rank: int
    lora: bool


class Engine(Protocol):
    """What an engine can be asked; it may have `score`, `panel`, `gaps`, `load` and `evict`, named like the jobs."""

    def batch(self, prompts: Prompts, adapters: Adapters, new_tokens: int) -> dict[str, Any]:
        """`{"tokens": ...}`: of each prompt exactly `new_tokens` greedy tokens."""
        ...


@dataclass(slots=True)
class Stages:
    """Wall and CPU seconds since process start, at the end of each stage of starting up."""

    rows: list[tuple[str, float, float]] = field(default_factory=list)

    def done(self, name: str) -> None:
        """A stage ends now."""
        self.rows.append((name, wall_since_start(), tree_cpu_seconds()))

    def table(self) -> str:
        """One line for each stage, with what it took and what had gone by at its end."""
        lines = [f"{'stage':20}{'wall s':>9}{'CPU s':>9}{'wall sum':>10}{'CPU sum':>9}"]
        wall, cpu = 0.0, 0.0
        for name, wall_sum, cpu_sum in self.rows:
            lines.append(f"{name:20}{wall_sum - wall:9.2f}{cpu_sum - cpu:9.2f}{wall_sum:10.2f}{cpu_sum:9.2f}")
            wall, cpu = wall_sum, cpu_sum
        return "\n".join(lines)


def wall_since_start() -> float:
    """Seconds since the kernel started this process; exact to a hundredth."""
    started = int(_stat_fields(os.getpid())[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


def tree_cpu_seconds() -> float:
    """CPU seconds of this process, its living descendants and all of their children that have ended."""
    total, left = 0.0, [os.getpid()]
    while left:
        pid = left.pop()
        try:
            fields = _stat_fields(pid)
            # The id of another process's CPU clock, as clock_getcpuclockid(3) computes it: nanoseconds, all threads.
            total += time.clock_gettime((~pid << 3) | 2)
            total += (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
            for thread in Path(f"/proc/{pid}/task").iterdir():
                left += map(int, (thread / "children").read_text().split())
        except OSError:  # It has just ended.
            continue
    return total


def _stat_fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the command's name, which may contain anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _options(argv: Sequence[str] | None) -> tuple[Options, bool]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--adapters", action="append", default=[], metavar="NAME=FOLDER", help="loaded at the start")
    parser.add_argument("--slots", type=int, default=64, help="how many adapters may be resident")
    parser.add_argument("--max-rank", type=int, default=8)
    parser.add_argument("--no-lora", action="store_true", help="the engine without its support for adapters")
    parser.add_argument("--first-token", action="store_true", help="measure the start, then end")
    given = parser.parse_args(argv)
    named = {name: Path(folder) for name, _, folder in (text.partition("=") for text in given.adapters)}
    options = Options(given.model, named, given.slots, given.max_rank, not given.no_lora)
    return options, given.first_token


def run(make_engine: Callable[[Options, Stages], Engine], argv: Sequence[str] | None = None) -> None:
    """The main function of every engine's script. `make_engine` marks the stages `imports`, `model` and `adapters`."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    stages = Stages()
    stages.done("interpreter")
    options, first_token = _options(argv)
    engine = make_engine(options, stages)
    if first_token:
        engine.batch([FIRST_PROMPT], [next(iter(options.adapters), None)], 1)
        stages.done("first token")
        print(stages.table(), file=sys.stderr)
        print(json.dumps({"op": "first-token", "stages": stages.rows}), file=answers)
    else:
        serve(engine, sys.stdin, answers)


def serve(engine: Engine, jobs: TextIO, answers: TextIO) -> None:
    """Answer jobs until standard input ends."""
    for line in jobs:
        job = json.loads(line)
        operation = job.pop("op")
        cpu, wall = tree_cpu_seconds(), time.monotonic()
        try:
            answer = (
                getattr(engine, operation, dict)(**job) if operation == "ready" else getattr(engine, operation)(**job)
            )
        except Exception:  # The harness decides what a failed job means; the engine goes on.
            answer = {"error": traceback.format_exc()}
        spent = {"wall_s": time.monotonic() - wall, "cpu_s": tree_cpu_seconds() - cpu}
        print(json.dumps({"op": operation, **spent, **(answer or {})}), file=answers)
