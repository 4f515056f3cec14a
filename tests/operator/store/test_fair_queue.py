"""Who goes next: no namespace and no host keeps the others waiting."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from motet_operator.store.fair_queue import FairQueue, Place


def fill(queue: FairQueue[str], namespace: str, count: int, host: str = "") -> None:
    for number in range(count):
        queue.put(f"{namespace}-{number}", namespace, host or f"{namespace}-{number}")


def started(queue: FairQueue[str]) -> list[Place[str]]:
    places = []
    while (place := queue.take()) is not None:
        places.append(place)
    return places


def test_a_namespace_with_a_thousand_sources_leaves_places_for_others() -> None:
    queue = FairQueue[str](8, 8)
    fill(queue, "greedy", 1000)
    assert len(started(queue)) == 4
    fill(queue, "modest", 1)
    assert [place.namespace for place in started(queue)] == ["modest"]


def test_many_greedy_namespaces_still_leave_one_place_for_a_newcomer() -> None:
    queue = FairQueue[str](16, 16)
    for name in ("a", "b", "c"):
        fill(queue, name, 1000)
    running = Counter(place.namespace for place in started(queue))
    assert sum(running.values()) < 16
    fill(queue, "newcomer", 1)
    assert [place.namespace for place in started(queue)] == ["newcomer"]


def test_a_slow_host_does_not_take_every_place() -> None:
    queue = FairQueue[str](8, 2)
    fill(queue, "a", 10, host="slow")
    assert len(started(queue)) == 2
    queue.put("quick", "a", "quick")
    assert [place.item for place in started(queue)] == ["quick"]


def test_namespaces_take_turns() -> None:
    queue = FairQueue[str](1, 1)
    for name in ("a", "b", "c"):
        fill(queue, name, 3)
    order = []
    while (place := queue.take()) is not None:
        order.append(place.namespace)
        queue.done(place)
    assert order == ["a", "b", "c"] * 3


def test_an_item_is_there_once() -> None:
    queue = FairQueue[str](4, 4)
    queue.put("x", "a", "h")
    queue.put("x", "b", "h")
    place = queue.take()
    queue.put("x", "b", "h")
    assert (queue.waiting, queue.running, queue.take()) == (0, 1, None)
    assert place is not None
    queue.done(place)
    assert "x" not in queue


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=60),
    st.integers(1, 8),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
def test_the_bounds_hold_and_everything_runs(jobs, total, per_host, random) -> None:  # type: ignore[no-untyped-def]
    queue = FairQueue[int](total, per_host)
    for item, (namespace, host) in enumerate(jobs):
        queue.put(item, f"n{namespace}", f"h{host}")
    running: list[Place[int]] = []
    done = set()
    while True:
        running += iter(queue.take, None)
        assert len(running) <= total
        assert all(count <= per_host for count in Counter(place.host for place in running).values())
        if not running:
            break
        place = running.pop(random.randrange(len(running)))
        queue.done(place)
        done.add(place.item)
    assert done == set(range(len(jobs)))
