"""Slots: rows are neither lost nor given twice, who is in use stays, and nobody has to go in vain."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motet_api.artifact.footprint import slot_rows
from motet_api.identity import Digest
from motet_runtime.engine.slots import Slot, SlotTable
from tests.runtime.engine_runs import adapter


def place(table: SlotTable, name: str, rank: int = 8, *, pins: int = 0, ready: bool = True) -> Slot | None:
    slot = table.place(adapter(name, rank=rank))
    if slot is not None:
        slot.pins, slot.ready = pins, ready
    table.check()
    return slot


def names(table: SlotTable) -> set[str]:
    return {slot.digest.removeprefix("sha256:") for slot in table}


@pytest.mark.parametrize(("rank", "rows"), [(1, 8), (8, 8), (9, 16), (16, 16), (17, 32), (64, 64), (65, 128)])
def test_an_adapter_takes_a_power_of_two_of_rows(rank: int, rows: int) -> None:
    assert slot_rows(rank) == rows


@pytest.mark.parametrize(("slots", "rows"), [(0, 8), (1, 7)])
def test_a_table_that_holds_nobody_is_refused(slots: int, rows: int) -> None:
    with pytest.raises(ValueError, match="at least one slot"):
        SlotTable(slots, rows)


def test_the_least_recently_used_makes_room() -> None:
    table = SlotTable(3, 64)
    for name in "abc":
        assert place(table, name)
    table.find(Digest("sha256:a"))
    assert place(table, "d")
    assert names(table) == {"a", "c", "d"}
    assert (table.loads, table.evictions) == (4, 1)


def test_who_is_in_use_or_on_its_way_stays() -> None:
    table = SlotTable(2, 64)
    used, coming = place(table, "used", pins=1), place(table, "coming", ready=False)
    assert used and coming
    assert place(table, "late") is None
    assert names(table) == {"used", "coming"}
    with pytest.raises(AssertionError, match="in use"):
        table.drop(used.digest)
    used.pins = 0
    assert place(table, "late")
    assert names(table) == {"late", "coming"}


def test_rows_are_a_budget_beside_slots() -> None:
    table = SlotTable(8, 32)
    assert place(table, "a", 16) and place(table, "b", 8)
    assert table.has_room(8) and not table.has_room(9)
    assert place(table, "c", 16)
    assert names(table) == {"b", "c"}, "one had to go, though slots are left"
    assert table.fits(32) and not table.fits(33)
    assert place(table, "d", 64) is None


def test_neighbouring_rows_that_are_free_become_one_run() -> None:
    table = SlotTable(8, 32)
    for name in "abcd":
        assert place(table, name, pins=1)
    for name in "bdc":  # in another order than they lie
        slot = table.find(Digest(f"sha256:{name}"))
        assert slot
        slot.pins = 0
        table.drop(slot.digest)
        table.check()
    assert table.has_room(16)
    assert place(table, "e", 16)
    assert names(table) == {"a", "e"}
    table.drop(Digest("sha256:nobody"))


def test_nobody_goes_in_vain() -> None:
    """Rows that are in use lie in between: even if all others went there would be no room for the large one."""
    table = SlotTable(8, 32)
    assert place(table, "a") and place(table, "b", pins=1) and place(table, "c") and place(table, "d", pins=1)
    assert place(table, "large", 16) is None
    assert names(table) == {"a", "b", "c", "d"}
    assert table.evictions == 0


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_rows_are_kept_whatever_comes_and_goes(data: st.DataObject) -> None:
    table = SlotTable(data.draw(st.integers(1, 6)), data.draw(st.integers(8, 100)))
    for number in range(data.draw(st.integers(1, 40))):
        choice = data.draw(st.sampled_from(["place", "place", "pin", "unpin", "drop"]))
        slots = list(table)
        if choice == "place":
            rank = data.draw(st.integers(1, 64))
            could = table.has_room(rank)
            before = names(table)
            slot = place(table, str(number), rank, ready=data.draw(st.booleans()))
            assert slot or not could
            if slot is None:
                assert names(table) == before
            elif could:
                assert before < names(table)
        elif slots:
            slot = data.draw(st.sampled_from(slots))
            if choice == "pin":
                slot.pins, slot.ready = slot.pins + 1, True
            elif choice == "unpin":
                slot.pins = 0
            elif not slot.pins:
                table.drop(slot.digest)
        table.check()
        assert sum(slot.rows for slot in table) <= table.rows
