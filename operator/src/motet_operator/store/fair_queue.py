"""Which job starts next. Pure.

Invariant: at most `total` run, at most `per_host` of one host, and a namespace takes at most half of the places that
the other namespaces leave (and always one, if there is one). So whoever fills the queue with slow or bad sources never
takes the last places; of the waiting namespaces the one with the fewest running goes first, then the one served longest
ago.
"""

from collections import Counter, OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Place(Generic[Item]):
    """A job that runs."""

    item: Item
    namespace: str
    host: str


class FairQueue(Generic[Item]):
    """Items wait by namespace, in order; an item is in the queue or running once at most."""

    def __init__(self, total: int, per_host: int) -> None:
        self._total = total
        self._per_host = per_host
        # The namespace that was served last is at the end.
        self._waiting: OrderedDict[str, OrderedDict[Item, str]] = OrderedDict()
        self._known: dict[Item, str] = {}
        self._running: dict[Item, Place[Item]] = {}
        self._namespaces: Counter[str] = Counter()
        self._hosts: Counter[str] = Counter()

    def __contains__(self, item: Item) -> bool:
        return item in self._known or item in self._running

    @property
    def waiting(self) -> int:
        """Jobs that wait."""
        return len(self._known)

    @property
    def running(self) -> int:
        """Jobs that run."""
        return len(self._running)

    def put(self, item: Item, namespace: str, host: str) -> None:
        """Let an item wait, if it does not already."""
        if item not in self:
            self._waiting.setdefault(namespace, OrderedDict())[item] = host
            self._known[item] = namespace

    def take(self) -> Place[Item] | None:
        """The next that may start, which counts as running until `done`; None if none may."""
        if self.running >= self._total:
            return None
        for namespace in sorted(self._waiting, key=lambda name: self._namespaces[name]):
            own = self._namespaces[namespace]
            if own >= max(1, (self._total - (self.running - own)) // 2):
                continue
            items = self._waiting[namespace]
            item = next((item for item, host in items.items() if self._hosts[host] < self._per_host), None)
            if item is not None:
                return self._start(item, namespace, items.pop(item))
        return None

    def done(self, place: Place[Item]) -> None:
        """The job has ended."""
        del self._running[place.item]
        for counter, name in ((self._namespaces, place.namespace), (self._hosts, place.host)):
            counter[name] -= 1
            if not counter[name]:
                del counter[name]

    def _start(self, item: Item, namespace: str, host: str) -> Place[Item]:
        self._waiting.move_to_end(namespace)
        if not self._waiting[namespace]:
            del self._waiting[namespace]
        del self._known[item]
        place = Place(item, namespace, host)
        self._running[item] = place
        self._namespaces[namespace] += 1
        self._hosts[host] += 1
        return place
