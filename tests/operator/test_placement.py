"""Placement by bytes: budgets hold, everything is placed or explained, and little moves."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motet_api.loraadapter import Residency
from motet_operator.adapters.placement import Item, Placement, Room, place

REQUIRED, PREFERRED, ON_DEMAND = Residency.REQUIRED, Residency.PREFERRED, Residency.ON_DEMAND


def on(placed: Placement) -> dict[str, str]:
    """Pods of each version that is not on all of them, as one word."""
    return {name: " ".join(sorted(pods)) for name, pods in placed.on.items()}


ROWS: dict[str, tuple[list[Item], list[Room], dict[str, str], dict[str, dict[str, int]]]] = {
    "required fits": ([Item("a", REQUIRED, 4), Item("b", REQUIRED, 6)], [Room("p", 10)], {}, {}),
    "the second does not": (
        [Item("a", REQUIRED, 4), Item("b", REQUIRED, 7)],
        [Room("p", 10), Room("q", 12)],
        {"b": ""},
        {"b": {"p": 1}},
    ),
    "the one that is held keeps its place": (
        [Item("a", REQUIRED, 4), Item("b", REQUIRED, 7)],
        [Room("p", 10, frozenset({"b"}))],
        {"a": ""},
        {"a": {"p": 1}},
    ),
    "one that serves keeps its place before one that is held": (
        [Item("a", REQUIRED, 4), Item("b", REQUIRED, 7, serving=True)],
        [Room("p", 10, frozenset({"a", "b"}))],
        {"a": ""},
        {"a": {"p": 1}},
    ),
    "one of an older adapter keeps its place before one of a younger": (
        [Item("a", REQUIRED, 6, serving=True, made=2), Item("b", REQUIRED, 6, serving=True, made=1)],
        [Room("p", 10, frozenset({"a", "b"}))],
        {"a": ""},
        {"a": {"p": 2}},
    ),
    "a pod that is too small takes it from no other": (
        [Item("a", REQUIRED, 4), Item("b", REQUIRED, 6)],
        [Room("p", 10, frozenset({"a", "b"})), Room("q", 5)],
        {"b": "p"},
        {"b": {"q": 5}},
    ),
    "what gives way to another is not moved twice": (
        [Item("a", PREFERRED, 1), Item("b", PREFERRED, 2)],
        [Room("p", 1), Room("q", 2, frozenset({"a", "b"}))],
        {"a": "p", "b": "q"},
        {},
    ),
    "a size that nobody knows weighs nothing": ([Item("a", REQUIRED)], [Room("p", 0)], {}, {}),
    "a pod that does not say has no bound": ([Item("a", REQUIRED, 99)], [Room("p")], {}, {}),
    "a pod that does not say counts as the smallest that does": (
        [Item("a", REQUIRED, 9)],
        [Room("p"), Room("q", 8), Room("r", 12)],
        {"a": ""},
        {"a": {"p": 1, "q": 1}},
    ),
    "on demand weighs nothing": ([Item("a", ON_DEMAND, 99)], [Room("p", 1)], {}, {}),
    "preferred gets what required leaves": (
        [Item("a", PREFERRED, 6), Item("b", REQUIRED, 5)],
        [Room("p", 10), Room("q", 11)],
        {"a": "q"},
        {},
    ),
    "preferred is everywhere where there is room": (
        [Item("a", PREFERRED, 6)],
        [Room("p", 10), Room("q", 11)],
        {"a": "p q"},
        {},
    ),
    "every preferred one gets a first place before any gets a second": (
        [Item("a", PREFERRED, 6), Item("b", PREFERRED, 6)],
        [Room("p", 10, frozenset({"a"})), Room("q", 10, frozenset({"a"}))],
        {"a": "p", "b": "q"},
        {},
    ),
    "while a pod is silent nothing makes way": (
        [Item("a", PREFERRED, 6), Item("b", PREFERRED, 6)],
        [Room("p", 10, frozenset({"a"})), Room("q", 10, frozenset({"a"})), Room("r", silent=True)],
        {"a": "p q", "b": "r"},
        {},
    ),
    "preferred has no room": (
        [Item("a", PREFERRED, 12)],
        [Room("p", 10), Room("q", 11)],
        {"a": ""},
        {"a": {"p": 2, "q": 1}},
    ),
    "no pod: nothing is missing": ([Item("a", PREFERRED, 12), Item("b", REQUIRED, 3)], [], {"a": ""}, {}),
}


@pytest.mark.parametrize(("items", "rooms", "where", "missing"), ROWS.values(), ids=ROWS)
def test_rows(items: list[Item], rooms: list[Room], where: dict[str, str], missing: dict[str, dict[str, int]]) -> None:
    placed = place(items, rooms)
    assert on(placed) == where
    assert placed.missing == missing


SIZES = st.one_of(st.none(), st.integers(0, 40))
ITEMS = st.lists(
    st.builds(Item, st.sampled_from([f"v{n}" for n in range(12)]), st.sampled_from(list(Residency)), SIZES),
    unique_by=lambda item: item.id,
    max_size=12,
)
ROOMS = st.lists(
    st.builds(
        Room,
        st.sampled_from(["p", "q", "r", "s"]),
        st.one_of(st.none(), st.integers(0, 100)),
        st.frozensets(st.sampled_from([f"v{n}" for n in range(12)])),
        st.booleans(),
    ),
    unique_by=lambda room: room.pod,
    max_size=4,
)


def load(items: list[Item], rooms: list[Room], placed: Placement) -> dict[str, int]:
    """Bytes that each pod is given."""
    everywhere = sum(item.weight for item in items if item.residency is REQUIRED and item.id not in placed.missing)
    return {
        room.pod: everywhere + sum(item.weight for item in items if room.pod in placed.on.get(item.id, ()))
        for room in rooms
    }


@given(ITEMS, ROOMS)
def test_no_pod_is_given_more_than_it_can_hold(items: list[Item], rooms: list[Room]) -> None:
    placed = place(items, rooms)
    given_bytes = load(items, rooms, placed)
    for room in rooms:
        assert room.capacity is None or given_bytes[room.pod] <= room.capacity


@given(ITEMS, ROOMS)
def test_everything_has_a_place_or_a_reason(items: list[Item], rooms: list[Room]) -> None:
    placed = place(items, rooms)
    for item in items:
        if item.residency is ON_DEMAND:
            assert item.id not in placed.missing
        elif item.residency is PREFERRED and rooms:
            assert bool(placed.on[item.id]) != (item.id in placed.missing)
        for pod, lacking in placed.missing.get(item.id, {}).items():
            assert lacking > 0, pod


@given(ITEMS, ROOMS)
def test_what_is_placed_stays(items: list[Item], rooms: list[Room]) -> None:
    placed = place(items, rooms)
    required = {item.id for item in items if item.residency is REQUIRED and item.id not in placed.missing}
    held = [
        # A pod that was silent and speaks is another situation: what was kept for it may go then.
        replace(room, holds=frozenset(required | {name for name, pods in placed.on.items() if room.pod in pods}))
        for room in rooms
    ]
    assert place(items, held) == placed
    assert place(list(reversed(items)), list(reversed(held))) == placed


@given(st.integers(1, 30), st.integers(2, 6))
def test_a_pod_more_moves_nothing_that_is_held(count: int, pods: int) -> None:
    items = [Item(f"v{number}", PREFERRED, 10) for number in range(count)]
    rooms = [Room(f"p{number}", 10 * count) for number in range(pods)]
    placed = place(items, rooms)
    held = [
        replace(room, holds=frozenset(name for name, where in placed.on.items() if room.pod in where)) for room in rooms
    ]
    wider = place(items, [*held, Room("new", 10 * count)])
    assert all(placed.on[item.id] <= wider.on[item.id] for item in items)
