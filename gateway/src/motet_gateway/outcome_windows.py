"""Counts in sliding windows: what became of one version's requests, up to a week back. Pure: the caller has the clock.

Every request is counted in a bucket of each width, and each width is kept for a span of its own: five seconds for five
minutes, a minute for an hour, an hour for a week. So a version takes no more than some three hundred buckets, however
long it is asked about; buckets without a request are not kept.

A window never begins before the moment that was asked for: it is made of whole buckets that began at or after it, of
the widest that there are, and of narrower ones where the wide ones do not reach. What happened between that moment and
the first bucket is left out: less than five seconds, a minute or an hour of it, by how far back it lies.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Final

from motet_api.wire import LATENCY_BOUNDS_MS, LONGEST_OUTCOME_SECONDS

SPANS: Final = ((3600, LONGEST_OUTCOME_SECONDS), (60, 3600), (5, 300))
"""Width of the buckets and for how long they are kept, the widest first; each width is a multiple of the next."""


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
    """Buckets of one width, the newest last; those that ended more than `span` ago are dropped."""

    def __init__(self, width: int, span: int) -> None:
        self.width = width
        self._span = span
        self._buckets: deque[Bucket] = deque()

    def at(self, now: float) -> Bucket:
        """The bucket of this moment."""
        start = now - now % self.width
        if not self._buckets or self._buckets[-1].start < start:
            self.trim(now)
            self._buckets.append(Bucket(start))
        return self._buckets[-1]

    def between(self, start: float, end: float) -> Iterator[Bucket]:
        """The buckets that begin in this time."""
        return (bucket for bucket in self._buckets if start <= bucket.start < end)

    def first_start(self, moment: float) -> float:
        """When the first bucket begins that has nothing in it of before the moment."""
        return -(-moment // self.width) * self.width

    def trim(self, now: float) -> None:
        """Drop what no window reaches any more."""
        while self._buckets and self._buckets[0].start + self.width <= now - self._span:
            self._buckets.popleft()

    def __len__(self) -> int:
        return len(self._buckets)


class Window:
    """What became of one version's requests."""

    def __init__(self) -> None:
        self.rings = [Ring(width, span) for width, span in SPANS]

    def answered(self, now: float, seconds: float, *, failed: bool) -> None:
        """A request is over that took so long."""
        for ring in self.rings:
            bucket = ring.at(now)
            bucket.requests += 1
            bucket.errors += failed
            bucket.latency[bisect_left(LATENCY_BOUNDS_MS, seconds * 1000)] += 1

    def compared(self, now: float, *, agreed: bool, drift: float | None) -> None:
        """Two answers to one request are known; `drift` if they have label probabilities."""
        for ring in self.rings:
            bucket = ring.at(now)
            bucket.compared += 1
            bucket.agreed += agreed
            if drift is not None:
                bucket.scored += 1
                bucket.drift_sum += drift

    def sum(self, now: float, seconds: float) -> Bucket:
        """The counts of the last so many seconds, rounded down to whole buckets."""
        total = Bucket(now - seconds)
        end = inf
        for ring in self.rings:
            start = ring.first_start(total.start)
            for bucket in ring.between(start, end):
                total.add(bucket)
            end = start
        return total

    def expired(self, now: float) -> bool:
        """Whether nothing is left to be said; drops what is too old on the way."""
        for ring in self.rings:
            ring.trim(now)
        return not any(self.rings)
