"""Waiting for something to become true: poll until a deadline, and say what was seen last when it never did."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(probe: Callable[[], T], accept: Callable[[T], bool] = bool, seconds: float = 30, what: str = "") -> T:
    """Call `probe` until `accept` takes its value; returns that value.

    Raises:
        AssertionError: the deadline passed; the message has the last value.
    """
    deadline = time.monotonic() + seconds
    while True:
        value = probe()
        # A probe can take long itself: what came true after the deadline did not come true in time.
        late = time.monotonic() > deadline
        if accept(value) and not late:
            return value
        if late:
            raise AssertionError(f"{what or 'condition'} did not hold within {seconds:.0f} s; last seen: {value!r}")
        time.sleep(0.1)
