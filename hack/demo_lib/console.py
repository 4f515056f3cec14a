"""What the person at the terminal sees: numbered sections, steps with seconds, tables."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager


class Console:
    """Prints progress. Every line carries the seconds since the start, so that a slow step is seen while it is slow."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()

    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._started

    def section(self, title: str) -> None:
        """A heading."""
        print(f"\n== {title}", flush=True)

    def say(self, text: str) -> None:
        """One line."""
        print(f"[{self.elapsed():6.1f} s] {text}", flush=True)

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Announce a step and, at its end, how long it took."""
        self.say(f"{text} ...")
        started = self._clock()
        yield
        self.say(f"{text}: {self._clock() - started:.1f} s")


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows in aligned columns under their headings."""
    cells = [list(headings), *[list(row) for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)
