"""Which pod holds which adapter version, by bytes. Pure.

Invariant: what a pod is given never exceeds what it says it can hold. Of what does not fit it is said how many bytes
are missing where; everything else is placed all the same.

    class       where
    -----       -----
    Required    on every pod, or on none: then it does not fit. Held ones keep their place before new ones.
    Preferred   in what is left: once each, as far as there is room, then on as many pods as there is room for.
    OnDemand    known to every pod and of no weight: the pod makes room for it when it is asked for.

Stable: a version stays where it is held, and which other pods it gets follows from a hash of version and pod, so that a
pod more or less moves little. What is held is what the pods say; while one of them is silent, nothing that is held
elsewhere makes way for what might be held there.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from motet_api.loraadapter import Residency


@dataclass(frozen=True, slots=True)
class Item:
    """A version. `size` is in bytes; None, while nobody knows it, weighs nothing."""

    id: str
    residency: Residency
    size: int | None = None

    @property
    def weight(self) -> int:
        """The bytes to reckon with."""
        return self.size or 0


@dataclass(frozen=True, slots=True)
class Room:
    """A pod. `capacity` is in bytes, None where it does not say (yet); `holds` has ids. A silent pod's are unknown."""

    pod: str
    capacity: int | None = None
    holds: frozenset[str] = frozenset()
    silent: bool = False


@dataclass(frozen=True, slots=True)
class Placement:
    """`on` has the pods of each Preferred version; `missing` the bytes that are missing on pods, by version."""

    on: Mapping[str, frozenset[str]] = field(default_factory=dict)
    missing: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def place(items: Iterable[Item], rooms: Sequence[Room]) -> Placement:
    """The placement. Required and OnDemand versions that are not in `missing` are on every pod."""
    free = _Free(rooms)
    by_class: dict[Residency, list[Item]] = {residency: [] for residency in Residency}
    for item in items:
        by_class[item.residency].append(item)
    missing = _place_required(by_class[Residency.REQUIRED], rooms, free)
    preferred = by_class[Residency.PREFERRED]
    if not preferred:
        return Placement(missing=missing)
    on = _place_preferred(preferred, rooms, free)
    for item in preferred:
        if not on[item.id] and rooms:
            missing[item.id] = free.missing(item)
    return Placement({name: frozenset(pods) for name, pods in on.items()}, missing)


class _Free:
    """What is left on each pod; None is no bound. A pod that does not say counts as the smallest that does."""

    def __init__(self, rooms: Sequence[Room]) -> None:
        smallest = min((room.capacity for room in rooms if room.capacity is not None), default=None)
        self._left = {room.pod: room.capacity if room.capacity is not None else smallest for room in rooms}

    def fits(self, item: Item, pod: str) -> bool:
        left = self._left[pod]
        return left is None or item.weight <= left

    def take(self, item: Item, pod: str) -> None:
        left = self._left[pod]
        if left is not None:
            self._left[pod] = left - item.weight

    def missing(self, item: Item) -> dict[str, int]:
        """How many bytes are missing, on the pods where any are."""
        return {pod: item.weight - left for pod, left in self._left.items() if left is not None and item.weight > left}


def _place_required(items: Sequence[Item], rooms: Sequence[Room], free: _Free) -> dict[str, Mapping[str, int]]:
    held = frozenset[str]().union(*(room.holds for room in rooms))
    refused = []
    for item in sorted(items, key=lambda item: item.id not in held):
        if free.missing(item):
            refused.append(item)
            continue
        for room in rooms:
            free.take(item, room.pod)
    # Reckoned at the end: what is missing is missing beside all that has a place.
    return {item.id: free.missing(item) for item in refused}


def _place_preferred(items: Sequence[Item], rooms: Sequence[Room], free: _Free) -> dict[str, set[str]]:
    on: dict[str, set[str]] = {item.id: set() for item in items}
    holders = {item.id: {room.pod for room in rooms if item.id in room.holds} for item in items}
    ranked = {item.id: sorted((room.pod for room in rooms), key=lambda pod: _draw(item.id, pod)) for item in items}

    def give(item: Item, pods: Iterable[str], most: int) -> None:
        for pod in pods:
            if len(on[item.id]) >= most:
                return
            if pod not in on[item.id] and free.fits(item, pod):
                free.take(item, pod)
                on[item.id].add(pod)

    def held(item: Item) -> list[str]:
        return [pod for pod in ranked[item.id] if pod in holders[item.id]]

    every = len(rooms)
    # What is held comes before what is not, so that nothing is moved that need not be.
    known = [item for item in items if holders[item.id]]
    new = [item for item in items if not holders[item.id]]
    for item in known:
        give(item, held(item), 1)
    if any(room.silent for room in rooms):
        for item in known:
            give(item, held(item), every)
    for item in [*known, *new]:
        give(item, ranked[item.id], 1)
    for item in known:
        give(item, held(item), every)
    for item in items:
        give(item, ranked[item.id], every)
    return on


def _draw(item: str, pod: str) -> bytes:
    return hashlib.blake2b(f"{item} {pod}".encode(), digest_size=8).digest()
