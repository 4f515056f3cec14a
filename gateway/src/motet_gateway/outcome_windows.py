"""Counts in sliding windows: what became of one version's requests, up to an hour back. Pure: the caller has the clock.

A window is made of whole buckets, so it reaches up to one bucket further back than asked: of five seconds up to five
minutes, of a minute beyond. Buckets without a request are not kept.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from motet_api.wire import LATENCY_BOUNDS_MS

FINE_SECONDS: Final = 5
FINE_SPAN: Final = 300
COARSE_SECONDS: Final = 60
LONGEST_SECONDS: Final = 3600


@dataclass(slots=True)
class Bucket:
    """Counts of a stretch of time, or of several; the fields are those of `VersionOutcome`."""

    start: float
    requests: int = 0
    errors: int = 0
    latency: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS_MS) + 1))
    compared: int = 0
    agreed: int = 0
    scored: int = 0
    drift_sum: float = 0.0

    def add(self, other: "Bucket") -> None:
        """Take another's counts in."""
        self.requests += other.requests
        self.errors += other.errors
        self.latency = [mine + theirs for mine, theirs in zip(self.latency, other.latency, strict=True)]
        self.compared += other.compared
        self.agreed += other.agreed
        self.scored += other.scored
        self.drift_sum += other.drift_sum


class Ring:
    """Buckets of one width, the newest last; those that began more than `span` ago are dropped."""

    def __init__(self, width: int, span: int) -> None:
        self._width = width
        self._span = span
        self._buckets: deque[Bucket] = deque()

    def at(self, now: float) -> Bucket:
        """The bucket of this moment."""
        start = now - now % self._width
        if not self._buckets or self._buckets[-1].start < start:
            self.trim(now)
            self._buckets.append(Bucket(start))
        return self._buckets[-1]

    def since(self, moment: float) -> Iterator[Bucket]:
        """The buckets of which some part is after the moment."""
        return (bucket for bucket in self._buckets if bucket.start + self._width > moment)

    def trim(self, now: float) -> None:
        """Drop what no window reaches any more."""
        while self._buckets and self._buckets[0].start + self._width <= now - self._span:
            self._buckets.popleft()

    def __bool__(self) -> bool:
        return bool(self._buckets)


class Window:
    """What became of one version's requests."""

    def __init__(self) -> None:
        self._fine = Ring(FINE_SECONDS, FINE_SPAN)
        self._coarse = Ring(COARSE_SECONDS, LONGEST_SECONDS)

    def answered(self, now: float, seconds: float, *, failed: bool) -> None:
        """A request is over that took so long."""
        for bucket in (self._fine.at(now), self._coarse.at(now)):
            bucket.requests += 1
            bucket.errors += failed
            bucket.latency[bisect_left(LATENCY_BOUNDS_MS, seconds * 1000)] += 1

    def compared(self, now: float, *, agreed: bool, drift: float | None) -> None:
        """Two answers to one request are known; `drift` if they have label probabilities."""
        for bucket in (self._fine.at(now), self._coarse.at(now)):
            bucket.compared += 1
            bucket.agreed += agreed
            if drift is not None:
                bucket.scored += 1
                bucket.drift_sum += drift

    def sum(self, now: float, seconds: float) -> Bucket:
        """The counts of the last so many seconds."""
        total = Bucket(now - seconds)
        for bucket in (self._fine if seconds <= FINE_SPAN else self._coarse).since(total.start):
            total.add(bucket)
        return total

    def expired(self, now: float) -> bool:
        """Whether nothing is left to be said; drops what is too old on the way."""
        self._fine.trim(now)
        self._coarse.trim(now)
        return not self._coarse
