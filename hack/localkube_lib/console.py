"""Progress for the person who waits: one line a step, with seconds."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


def say(text: str) -> None:
    """One line of progress, on standard error so that standard output stays parseable."""
    print(f"[localkube] {text}", file=sys.stderr, flush=True)


@contextmanager
def step(text: str) -> Iterator[None]:
    """Announce a step and, at its end, how long it took."""
    started = time.monotonic()
    say(f"{text} ...")
    yield
    say(f"{text}: {time.monotonic() - started:.1f} s")
