"""Letting variants take turns in rounds, and figures from what they spent.

A round runs each variant once, so a noisy machine hurts all alike; a ratio is taken within each round, and its median
over the rounds is the figure. CPU seconds count, not wall time: the machine is shared.
"""

import statistics
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bench.process import Answer, EngineMissingError, Process, Setup

Job = dict[str, Any]
WARM_UP = 0
"""The first round: it does not count, so its jobs may be smaller."""
TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Variant:
    """One side of a comparison: an engine, and the job that it gets in each round."""

    setup: Setup
    job: Callable[[int], Job]


@dataclass(slots=True)
class Measured:
    """The answers of each variant, round by round, without the warm-up."""

    answers: dict[str, list[Answer]] = field(default_factory=dict)

    def __contains__(self, name: object) -> bool:
        return name in self.answers

    def cpu_seconds(self, name: str) -> float:
        """Median over the rounds."""
        return statistics.median(self._spent(name))

    def speed_ratio(self, faster: str, slower: str) -> float:
        """How many times as much `faster` gets done in a CPU second; median over the rounds."""
        pairs = zip(self._spent(faster), self._spent(slower), strict=True)
        return statistics.median(behind / ahead for ahead, behind in pairs)

    def equal_share(self, one: str, other: str) -> float:
        """Share of the requests for which two variants gave the same tokens, over all rounds."""
        pairs = zip(self._rows(one), self._rows(other), strict=True)
        return statistics.mean(float(left == right) for left, right in pairs)

    def worst_difference(self, name: str, reference: str) -> float:
        """Of all scores; raises as `worst_difference` does."""
        pairs = zip(self.answers[name], self.answers[reference], strict=True)
        return max(worst_difference(ours["scores"], theirs["scores"]) for ours, theirs in pairs)

    def _spent(self, name: str) -> list[float]:
        return [float(answer["cpu_s"]) for answer in self.answers[name]]

    def _rows(self, name: str) -> list[Any]:
        return [row for answer in self.answers[name] for row in answer["tokens"]]


def worst_difference(scores: list[list[float]], reference: list[list[float]]) -> float:
    """The largest relative difference between two engines' scores.

    Raises:
        RuntimeError: it is beyond what rounding explains, so how fast they were computed means nothing.
    """
    pairs = [pair for rows in zip(scores, reference, strict=True) for pair in zip(*rows, strict=True)]
    worst = max(abs(ours - theirs) / abs(theirs) for ours, theirs in pairs)
    if worst > TOLERANCE:
        raise RuntimeError(f"scores differ by {worst:.1e} of the reference's")
    return float(f"{worst:.1e}")


@contextmanager
def running(setups: Mapping[str, Setup]) -> Iterator[dict[str, Process]]:
    """The processes of these set-ups, one for all that are equal; those of engines that are missing are left out."""
    processes: dict[Setup, Process | None] = {}
    try:
        for setup in setups.values():
            if setup not in processes:
                try:
                    processes[setup] = Process(setup)
                except EngineMissingError as missing:
                    print(f"[bench] without {setup.engine}: {missing}", file=sys.stderr)
                    processes[setup] = None
        started = ((name, processes[setup]) for name, setup in setups.items())
        yield {name: process for name, process in started if process}
    finally:
        for process in processes.values():
            if process:
                process.close()


def take_turns(variants: Mapping[str, Variant], rounds: int) -> Measured:
    """A round to warm up, then `rounds` of them."""
    measured = Measured()
    with running({name: variant.setup for name, variant in variants.items()}) as processes:
        for turn in range(rounds + 1):
            for name, process in processes.items():
                answer = process.ask(variants[name].job(turn))
                print(f"[bench] round {turn}  {name:24}{answer['cpu_s']:9.2f} CPU s", file=sys.stderr)
                if turn != WARM_UP:
                    measured.answers.setdefault(name, []).append(answer)
    return measured
