"""Adapter slots: which adapters lie on the device, in which rows of the stacked weights. Imports no torch.

Invariant: an adapter that a running sequence uses is pinned and stays; one that is being copied stays; of the others
the least recently used makes room. An adapter takes `slot_rows(rank)` neighbouring rows of every module's stack, so a
rank-8 adapter does not pay for a rank of 64 that another one has.
"""

import itertools
from bisect import insort
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from motet_api.artifact.footprint import SMALLEST_ROWS, slot_rows
from motet_api.identity import Digest
from motet_runtime.engine.sequence import Adapter


@dataclass(slots=True, eq=False)
class Slot:
    """One adapter's place: rows `row` to `row + rows`. `ready` once its weights are there; `unwanted` if its adapter
    was removed while they were being copied.
    """

    digest: Digest
    row: int
    rows: int
    ready: bool = False
    pins: int = 0
    unwanted: bool = False


class SlotTable:
    """At most `slots` adapters in at most `rows` rows."""

    def __init__(self, slots: int, rows: int) -> None:
        if slots < 1 or rows < SMALLEST_ROWS:
            raise ValueError(f"at least one slot and {SMALLEST_ROWS} rows are needed")
        self.slots = slots
        self.rows = rows
        self.loads = 0
        self.evictions = 0
        self._placed: OrderedDict[Digest, Slot] = OrderedDict()
        self._free: list[tuple[int, int]] = [(0, rows)]

    def __len__(self) -> int:
        return len(self._placed)

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._placed.values())

    def __contains__(self, digest: Digest) -> bool:
        return digest in self._placed

    @property
    def pinned(self) -> int:
        """Slots that running sequences use."""
        return sum(slot.pins > 0 for slot in self._placed.values())

    def fits(self, rank: int) -> bool:
        """Whether an adapter of this rank fits at all."""
        return slot_rows(rank) <= self.rows

    def has_room(self, rank: int) -> bool:
        """Whether an adapter of this rank can be placed without another having to go."""
        return len(self._placed) < self.slots and any(end - begin >= slot_rows(rank) for begin, end in self._free)

    def find(self, digest: Digest) -> Slot | None:
        """The adapter's slot, and note that it was used."""
        slot = self._placed.get(digest)
        if slot is not None:
            self._placed.move_to_end(digest)
        return slot

    def place(self, adapter: Adapter) -> Slot | None:
        """A slot for an adapter that has none, not ready yet; makes room by the least recently used. None if all that
        could make room is in use.
        """
        rows = slot_rows(adapter.rank)
        if not self._could_place(rows):
            return None  # and nobody goes in vain
        row = self._take(rows) if len(self._placed) < self.slots else None
        while row is None:
            victim = next(slot for slot in self._placed.values() if slot.ready and not slot.pins)
            self.drop(victim.digest)
            self.evictions += 1
            row = self._take(rows)
        slot = Slot(adapter.digest, row, rows)
        self._placed[adapter.digest] = slot
        self.loads += 1
        return slot

    def drop(self, digest: Digest) -> None:
        """Free an adapter's slot, if it has one. No sequence may be using it."""
        slot = self._placed.get(digest)
        if slot is None:
            return
        assert not slot.pins, f"{digest} is in use"
        del self._placed[digest]
        insort(self._free, (slot.row, slot.row + slot.rows))
        merged: list[tuple[int, int]] = []
        for begin, end in self._free:
            if merged and merged[-1][1] == begin:
                merged[-1] = (merged[-1][0], end)
            else:
                merged.append((begin, end))
        self._free = merged

    def _could_place(self, rows: int) -> bool:
        """Whether so many neighbouring rows would be free if all went that may."""
        staying = sorted(
            (slot.row, slot.row + slot.rows) for slot in self._placed.values() if slot.pins or not slot.ready
        )
        gaps = itertools.pairwise([(0, 0), *staying, (self.rows, self.rows)])
        return len(staying) < self.slots and any(after[0] - before[1] >= rows for before, after in gaps)

    def _take(self, rows: int) -> int | None:
        for index, (begin, end) in enumerate(self._free):
            if end - begin >= rows:
                self._free[index : index + 1] = [(begin + rows, end)] if end - begin > rows else []
                return begin
        return None

    def check(self) -> None:
        """Raise AssertionError unless rows are neither lost nor given twice (for tests)."""
        spans = sorted([*self._free, *((slot.row, slot.row + slot.rows) for slot in self._placed.values())])
        assert spans[0][0] == 0
        assert spans[-1][1] == self.rows
        assert all(one[1] == other[0] for one, other in itertools.pairwise(spans))
        assert len(self._placed) <= self.slots
