"""Which pod holds which adapter version, by bytes. Pure.

Invariant: what a pod is given never exceeds what it says it can hold. Of what does not fit it is said how many bytes
are missing where; everything else is placed all the same.

    class       where
    -----       -----
    Required    on every pod, or it does not fit: then it goes to no pod more, and stays on those that hold it.
    Preferred   in what is left: once each, as far as there is room, then on as many pods as there is room for.
    OnDemand    known to every pod and of no weight: the pod makes room for it when it is asked for.

Versions with a share of the split come before others, those that are held before those that are not, those of older
adapters before those of younger ones. Stable: a version
stays where it is held, and which other pods it gets follows from a hash of version and pod, so that a pod more or less
moves little. What one placement brings about is looked at again before anything is moved: the result is one that the
next look repeats. What is held is what the pods say; while one of them is silent, nothing that is held
elsewhere makes way for what might be held there.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from motet_api.loraadapter import Residency

_LOOKS: Final = 8
"""After so many looks one is as good as another; two or three are usual."""


@dataclass(frozen=True, slots=True)
class Item:
    """A version. `size` is in bytes; None, while nobody knows it, weighs nothing. `serving`: it has a share of the
    split. `made` is when its adapter was made, in seconds since any moment.
    """

    id: str
    residency: Residency
    size: int | None = None
    serving: bool = False
    made: float = 0.0

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
    """`missing` has the bytes that are missing on pods, by version. `on` has the pods of each Preferred version, and of
    each Required one in `missing` those that keep it.
    """

    on: Mapping[str, frozenset[str]] = field(default_factory=dict)
    missing: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def place(items: Iterable[Item], rooms: Sequence[Room]) -> Placement:
    """The placement. Required and OnDemand versions that are not in `missing` are on every pod."""
    ordered = sorted(items, key=lambda item: (not item.serving, item.made, item.id))
    placed = _look(ordered, rooms)
    for _ in range(_LOOKS):
        again = _look(ordered, _as_placed(ordered, rooms, placed))
        if again == placed:
            break
        placed = again
    return placed


def _look(items: Sequence[Item], rooms: Sequence[Room]) -> Placement:
    free = _Free(rooms)
    by_class: dict[Residency, list[Item]] = {residency: [] for residency in Residency}
    for item in items:
        by_class[item.residency].append(item)
    on, missing = _place_required(by_class[Residency.REQUIRED], rooms, free)
    preferred = by_class[Residency.PREFERRED]
    if preferred:
        on |= _place_preferred(preferred, rooms, free)
        for item in preferred:
            if not on[item.id] and rooms:
                missing[item.id] = free.missing(item)
    return Placement({name: frozenset(pods) for name, pods in on.items()}, missing)


def _as_placed(items: Sequence[Item], rooms: Sequence[Room], placed: Placement) -> list[Room]:
    """The pods once they hold what they are given."""
    everywhere = {item.id for item in items if item.residency is Residency.REQUIRED and item.id not in placed.missing}
    return [
        replace(room, holds=frozenset(everywhere | {name for name, pods in placed.on.items() if room.pod in pods}))
        for room in rooms
    ]


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


def _place_required(
    items: Sequence[Item], rooms: Sequence[Room], free: _Free
) -> tuple[dict[str, set[str]], dict[str, Mapping[str, int]]]:
    holders = {item.id: [room.pod for room in rooms if item.id in room.holds] for item in items}
    kept: dict[str, set[str]] = {}
    refused = []
    for item in sorted(items, key=lambda item: (not item.serving, -len(holders[item.id]))):
        stays = {room.pod for room in rooms}
        if free.missing(item):
            refused.append(item)
            stays = kept[item.id] = {pod for pod in holders[item.id] if free.fits(item, pod)}
        for pod in stays:
            free.take(item, pod)
    # Reckoned at the end: what is missing is missing beside all that has a place.
    return kept, {item.id: _lacking(item, rooms, kept[item.id], free) for item in refused}


def _lacking(item: Item, rooms: Sequence[Room], kept: set[str], free: _Free) -> dict[str, int]:
    """Bytes that are missing for it, on the pods that do not keep it."""
    return {pod: count for pod, count in free.missing(item).items() if pod not in kept}


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
