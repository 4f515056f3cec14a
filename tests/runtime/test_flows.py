"""Adapters take turns: neither many requests of one, nor many adapters of one request, keep another from its turn."""

import itertools

import pytest

from motet_runtime.engine.flows import Flows
from motet_runtime.engine.sequence import Adapter, Sequence
from tests.runtime.engine_runs import adapter, run, sequence

NUMBERS = itertools.count(1)
A, B, C = (adapter(name) for name in "abc")


def new(acting: Adapter | None = None, prompt: int = 4, new_tokens: int = 1) -> Sequence:
    return sequence(next(NUMBERS), prompt, new_tokens, acting)


def serve(flows: Flows, tokens: int = 10, *, end: bool = True) -> Sequence:
    """The next in turn begins, and so many tokens are computed for it."""
    one = flows.admit(flows.in_turn()[0])
    flows.charge(one, tokens)
    if end:
        flows.ended(one)
    return one


def order(flows: Flows) -> list[str | None]:
    return [flow.key for flow in flows.in_turn()]


def test_who_was_served_least_goes_first() -> None:
    flows = Flows()
    for acting in (A, A, A, B, None):
        flows.enqueue(new(acting))
    assert order(flows) == ["a", "b", None], "equals go as they came"
    assert serve(flows).adapter is A
    assert order(flows) == ["b", None, "a"]
    assert [serve(flows).adapter for _ in range(4)] == [B, None, A, A]
    assert (len(flows), order(flows)) == (0, [])


def test_tokens_are_counted_and_not_requests() -> None:
    flows = Flows()
    for _ in range(10):
        flows.enqueue(new(A))
        flows.enqueue(new(B))
    served = {"a": 0, "b": 0}
    for _ in range(11):
        owner = flows.in_turn()[0].key
        assert owner is not None
        serve(flows, 10 if owner == "a" else 100)
        served[owner] += 1
    assert served == {"a": 10, "b": 1}


def test_nobody_saves_up_a_claim_while_away() -> None:
    flows = Flows()
    for _ in range(30):
        flows.enqueue(new(A))
    for _ in range(10):
        serve(flows)
    for _ in range(10):
        flows.enqueue(new(B))
    turns = [serve(flows).adapter for _ in range(10)]
    assert turns.count(B) == pytest.approx(5, abs=1), "from now on in turns, not all of the newcomer's first"


def test_one_that_only_runs_on_does_not_hold_the_count_of_newcomers_down() -> None:
    flows = Flows()
    flows.enqueue(new(A))
    serve(flows, 1, end=False)  # a long answer, of few tokens so far
    for _ in range(20):
        flows.enqueue(new(B))
    for _ in range(10):
        serve(flows, 100)
    for _ in range(10):
        flows.enqueue(new(C))
        flows.enqueue(new(A))
    turns = [serve(flows, 100).adapter for _ in range(15)]
    assert {turns.count(one) for one in (A, B, C)} == {5}


def test_adapters_that_come_and_go_do_not_starve_one_that_stays() -> None:
    """Twenty that ask once, again and again, so that one of them always waits; and one that was ahead of them."""
    flows = Flows()
    visitors = itertools.cycle([adapter(f"visitor-{number}") for number in range(20)])
    for _ in range(50):
        flows.enqueue(new(A))
    for _ in range(3):
        flows.enqueue(new(next(visitors)))
    ahead = flows.admit(flows.in_turn()[0])
    assert ahead.adapter is A
    flows.charge(ahead, 100)
    turns = []
    for _ in range(400):
        flows.enqueue(new(next(visitors)))
        turns.append(serve(flows, 10).adapter)
    assert turns.count(A) == pytest.approx(400 / 21, rel=0.6)


def test_a_preempted_sequence_waits_before_the_others_of_its_adapter() -> None:
    flows = Flows()
    first, second = new(A), new(A)
    flows.enqueue(first)
    flows.enqueue(second)
    assert serve(flows, 5, end=False) is first
    flows.put_back(first)
    assert len(flows) == 2
    assert serve(flows, 5) is first
    assert serve(flows, 5) is second


def test_who_withdraws_is_gone_and_only_once() -> None:
    flows = Flows()
    one, other = new(A), new(A)
    flows.enqueue(one)
    flows.enqueue(other)
    assert flows.withdraw(one)
    assert not flows.withdraw(one)
    assert not flows.withdraw(new(B))
    assert list(flows.all_waiting()) == [other]
    assert len(flows) == 1


def test_patience_begins_anew_with_each_request() -> None:
    flows = Flows()
    one = new(A)
    flows.enqueue(one)
    flows.in_turn()[0].passed_over = 1000
    flows.withdraw(one)
    flows.enqueue(new(A))
    assert flows.in_turn()[0].passed_over == 0


def test_counts_that_no_newcomer_would_be_below_are_forgotten() -> None:
    flows = Flows()
    for number in range(1000):
        flows.enqueue(new(adapter(f"once-{number}")))
        serve(flows)
    assert len(flows._flows) < 3


def test_an_endless_queue_leaves_another_adapter_its_half() -> None:
    engine = run(max_batch_size=4, max_step_tokens=16)
    begun: list[str] = []
    ready = {"a": 0, "b": 0}
    for _ in range(200):
        for name, acting in (("a", A), ("b", B)):
            # One always has twenty waiting, the other never more than two.
            limit = 20 if name == "a" else 2
            while ready[name] < limit:
                engine.add(new(acting, new_tokens=6))
                ready[name] += 1
        for chunk in engine.step().chunks:
            if chunk.start == 0:
                begun.append(chunk.sequence.adapter.id if chunk.sequence.adapter else "")
                ready[begun[-1]] -= 1
    half = len(begun) // 2
    assert half > 20
    assert begun.count("a") == pytest.approx(half, abs=3)


def test_a_newcomer_begins_as_soon_as_a_place_is_free() -> None:
    engine = run(max_batch_size=2, max_step_tokens=16)
    for _ in range(50):
        engine.add(new(A, new_tokens=3))
    for _ in range(10):
        engine.step()
    late = new(B, new_tokens=3)
    engine.add(late)
    for _ in range(3):
        engine.step()
    assert late.computed
