"""What became of the requests of each adapter version: the evidence that a rollout is judged by.

Counted as requests are those that a version has answered, well or badly. Errors are failures of the version or its
engine. Not counted at all are requests that the caller got wrong or gave up, and those for which there was no room:
they say nothing of the version, and would make a bad one look better.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from types import TracebackType
from typing import Final, NamedTuple, Self

from motet_api.loraadapter import TrafficTarget
from motet_api.wire import AdapterOutcome, VersionOutcome
from motet_gateway.fleet import Fleet
from motet_gateway.outcome_windows import Window
from motet_gateway.resolve import Route
from motet_gateway.table import Adapter, ObjectKey, Table

SWEEP_SECONDS: Final = 60


class _Subject(NamedTuple):
    adapter: ObjectKey
    version: str


class Outcomes:
    """Counts by version. Only versions with requests take memory, and only for as long as a window reaches back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._swept = clock()
        self._windows: defaultdict[ObjectKey, dict[str, Window]] = defaultdict(dict)
        self._in_flight: Counter[_Subject] = Counter()
        self._table: Table | None = None

    def visit(self, route: Route) -> "Visit":
        """A request for this version is in flight until the visit is over."""
        return Visit(self, route, self._clock())

    def compared(self, route: Route, *, agreed: bool, drift: float | None) -> None:
        """The version's answer to a copy, and the one that the client got, are known."""
        if (subject := subject_of(route)) is not None:
            self._window(subject).compared(self._clock(), agreed=agreed, drift=drift)

    def report(self, key: ObjectKey, adapter: Adapter | None, seconds: float) -> AdapterOutcome:
        """The counts of the last so many seconds, of the versions that exist and of those that still have requests.

        Args:
            adapter: what the routing table has under the key.
        """
        now = self._clock()
        windows = self._windows.get(key, {})
        known = () if adapter is None else adapter.versions
        busy = {subject.version for subject in self._in_flight if subject.adapter == key}
        names = [*known, *sorted((windows.keys() | busy) - set(known))]
        return AdapterOutcome(
            namespace=key.namespace,
            name=key.name,
            following=None if adapter is None else _following(adapter),
            versions=[self._version(_Subject(key, name), windows.get(name), now, seconds) for name in names],
        )

    def prune(self, table: Table, _fleet: Fleet) -> None:
        """Drop the counts of what does not exist any more."""
        if table is self._table:
            return
        self._table = table
        for key in list(self._windows):
            adapter = table.adapters.get(key)
            if adapter is None:
                del self._windows[key]
                continue
            windows = self._windows[key]
            for gone in windows.keys() - set(adapter.versions):
                del windows[gone]

    def began(self, subject: _Subject) -> None:
        """Called by the visit."""
        self._in_flight[subject] += 1

    def ended(self, subject: _Subject) -> None:
        """Called by the visit."""
        self._in_flight[subject] -= 1
        if not self._in_flight[subject]:
            del self._in_flight[subject]

    def answered(self, subject: _Subject, started: float, *, failed: bool) -> None:
        """Called by the visit."""
        now = self._clock()
        self._window(subject).answered(now, now - started, failed=failed)

    def _window(self, subject: _Subject) -> Window:
        self._sweep()
        windows = self._windows[subject.adapter]
        if subject.version not in windows:
            windows[subject.version] = Window()
        return windows[subject.version]

    def _sweep(self) -> None:
        now = self._clock()
        if now - self._swept < SWEEP_SECONDS:
            return
        self._swept = now
        for key, windows in list(self._windows.items()):
            for version in [version for version, window in windows.items() if window.expired(now)]:
                del windows[version]
            if not windows:
                del self._windows[key]

    def _version(self, subject: _Subject, window: Window | None, now: float, seconds: float) -> VersionOutcome:
        total = (window or Window()).sum(now, seconds)
        return VersionOutcome(
            version=subject.version,
            requests=total.requests,
            errors=total.errors,
            latency=total.latency,
            compared=total.compared,
            agreed=total.agreed,
            scored=total.scored,
            drift_sum=total.drift_sum,
            in_flight=self._in_flight[subject],
        )


class Visit:
    """One request, from its arrival until the last byte of its answer. Without a verdict it is not counted."""

    def __init__(self, outcomes: Outcomes, route: Route, started: float) -> None:
        self._outcomes = outcomes
        self._subject = subject_of(route)
        self._started = started
        self._failed: bool | None = None

    def __enter__(self) -> Self:
        if self._subject is not None:
            self._outcomes.began(self._subject)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._subject is not None:
            self._outcomes.ended(self._subject)
            if self._failed is not None:
                self._outcomes.answered(self._subject, self._started, failed=self._failed)

    def move(self, route: Route) -> None:
        """Another version answers."""
        if self._subject is not None:
            self._outcomes.ended(self._subject)
        self._subject = subject_of(route)
        if self._subject is not None:
            self._outcomes.began(self._subject)

    @property
    def verdict(self) -> bool | None:
        """Whether the version failed; None while there is nothing to say of it."""
        return self._failed

    def answered(self) -> None:
        """The whole answer was sent."""
        self._failed = False

    def failed(self) -> None:
        """The version, or its engine, failed."""
        self._failed = True


def subject_of(route: Route) -> _Subject | None:
    """Whose counts a request goes to; None for the base."""
    if route.adapter is None or route.version is None:
        return None
    return _Subject(route.adapter.key, route.version)


def _following(adapter: Adapter) -> list[TrafficTarget]:
    return [
        TrafficTarget(version=share.version, weight=share.weight)
        for share in adapter.traffic
        if share.version in adapter.versions
    ]
