"""Adapters come to their slots, stay while they are used, and none of them waits for ever. No torch."""

import itertools
from collections import Counter

import pytest

from motet_api.identity import AdapterId
from motet_runtime.engine.scheduler import _PATIENCE
from motet_runtime.engine.sequence import Adapter, Sequence
from tests.runtime.engine_runs import Run, adapter, run, sequence

NUMBERS = itertools.count(1)
A, B, C = (adapter(name) for name in "abc")


def new(acting: Adapter | None = None, new_tokens: int = 3, prompt: int = 4) -> Sequence:
    return sequence(next(NUMBERS), prompt, new_tokens, acting)


def loads(engine: Run) -> Counter[AdapterId]:
    return Counter(load.adapter.id for load in engine.loads)


def steps_until(engine: Run, one: Sequence, limit: int = 2000) -> int:
    """Steps until a sequence begins."""
    for step in range(limit):
        if one.computed or one in engine.finished:
            return step
        engine.step()
    raise AssertionError(f"sequence {one.id} does not begin within {limit} steps")


def test_a_request_waits_for_its_adapter_and_others_do_not() -> None:
    engine = run(delay=2)
    needs, other = new(A), new()
    engine.add(needs, other)
    assert [row[0] for row in engine.rows()] == [other.id]
    assert loads(engine) == {"a": 1}
    steps_until(engine, needs)
    assert engine.steps == 4
    engine.finish()


def test_an_adapter_that_is_there_is_not_loaded_again() -> None:
    engine = run()
    for _ in range(3):
        engine.add(new(A), new(A))
        engine.finish()
    assert loads(engine) == {"a": 1}


def test_adapters_in_use_are_never_evicted_and_the_next_waits() -> None:
    engine = run(slots=2)
    engine.add(new(A, 30), new(B, 30))
    engine.step()
    engine.step()
    late = new(C)
    engine.add(late)
    while late.computed == 0:
        engine.step()
    assert len(engine.finished) >= 1
    engine.finish()
    assert loads(engine) == {"a": 1, "b": 1, "c": 1}


def test_rows_of_different_ranks_are_a_budget() -> None:
    engine = run(rows=32, slots=8)
    engine.add(new(adapter("large", rank=30), 10), *(new(adapter(f"s{number}", rank=5), 3) for number in range(6)))
    engine.finish()
    assert engine.scheduler.slots.evictions > 0


@pytest.mark.parametrize("delay", [0, 2])
def test_a_thousand_adapters_go_through_few_slots(delay: int) -> None:
    engine = run(delay=delay, slots=4, rows=48, max_batch_size=8, max_step_tokens=64)
    owners = [adapter(f"n{number}", rank=(4, 16)[number % 2]) for number in range(1000)]
    engine.add(*(new(owner, 2) for owner in owners))
    engine.finish(limit=20_000)
    assert len(engine.finished) == 1000
    assert len(engine.loads) <= 1100, "hardly one is loaded twice for one request"


def test_many_adapters_again_and_again_are_loaded_no_more_often_than_asked_for() -> None:
    engine = run(delay=1, slots=3, rows=24, max_batch_size=8)
    owners = [adapter(f"n{number}") for number in range(12)]
    for _ in range(10):
        engine.add(*(new(owner, 2) for owner in owners))
    engine.finish()
    assert len(engine.loads) <= 120
    assert len(engine.finished) == 120


def test_an_adapter_that_gets_no_slot_is_let_in_within_the_patience() -> None:
    """All slots are pinned by adapters whose requests never end to come."""
    engine = run(slots=2, max_batch_size=6)
    answer = 5
    engine.add(*(new(owner, answer) for owner in (A, B, A, B)))
    for _ in range(10):
        engine.step()
    late = new(C)
    engine.add(late)
    begun = engine.steps
    while not late.computed:
        engine.add(*(new(owner, answer) for owner in (A, B) if engine.scheduler.waiting < 6))
        engine.step()
        assert engine.steps - begun < 4 * (_PATIENCE + answer)
    assert C.digest in engine.scheduler.slots


def test_an_adapter_of_many_rows_is_let_in_among_those_of_few() -> None:
    engine = run(slots=8, rows=32, max_batch_size=8)
    small = [adapter(f"s{number}") for number in range(8)]
    for round_ in range(4):
        engine.add(*(new(owner, 3 + round_) for owner in small))
    engine.step()
    engine.step()
    large = new(adapter("large", rank=32))
    engine.add(large)
    begun, visits = engine.steps, itertools.cycle(small)
    while not large.computed:
        if engine.scheduler.waiting < 10:
            engine.add(new(next(visits), 4))
        engine.step()
        assert engine.steps - begun < 4 * _PATIENCE
    loaded = len(engine.loads)
    assert loaded < 2 * engine.steps
    engine.finish()


def test_an_endless_queue_of_one_adapter_does_not_keep_another_from_running() -> None:
    engine = run(slots=1, max_batch_size=4)
    engine.add(*(new(A, 4) for _ in range(12)))
    engine.step()
    late = new(B)
    engine.add(late)
    begun = engine.steps
    while not late.computed:
        if engine.scheduler.waiting < 12:
            engine.add(new(A, 4))
        engine.step()
        assert engine.steps - begun < 2 * _PATIENCE


def test_a_load_that_fails_fails_those_who_wait_for_it_and_nobody_else() -> None:
    engine = run(delay=5)
    one, twin = new(A), new(Adapter(AdapterId("a-again"), A.digest, 8))
    other = new(B)
    engine.add(one, twin, other, new())
    engine.step()
    failed = engine.scheduler.load_failed(A.digest, "the disk is gone")
    assert {failure.sequence for failure in failed} == {one, twin}
    assert {failure.error for failure in failed} == {"the disk is gone"}
    engine._coming = [coming for coming in engine._coming if coming[1].adapter is not A]
    engine.scheduler.check()
    engine.finish()
    assert other in engine.finished
    retry = new(A)
    engine.add(retry)
    engine.finish()
    assert retry in engine.finished
    assert loads(engine)[A.id] == 2


def test_a_load_that_fails_for_nobody_is_harmless() -> None:
    engine = run(delay=5)
    engine.scheduler.prefetch(A)
    engine.step()
    assert engine.scheduler.load_failed(A.digest, "gone") == []
    assert engine.scheduler.load_failed(B.digest, "gone") == []
    engine.scheduler.loaded(B.digest)
    assert len(engine.scheduler.slots) == 0


def test_prefetching_takes_what_is_free_and_evicts_nobody() -> None:
    engine = run(slots=2)
    for one in (A, A, B, C):
        engine.scheduler.prefetch(one)
    engine.step()
    assert loads(engine) == {"a": 1, "b": 1}
    engine.step()
    engine.add(new(A))
    assert engine.rows(), "no step is lost to loading"
    engine.finish()


def test_an_adapter_that_is_forgotten_leaves_its_slot() -> None:
    engine = run()
    engine.add(new(A))
    engine.finish()
    engine.scheduler.forget_adapter(A.digest)
    engine.scheduler.forget_adapter(B.digest)
    assert A.digest not in engine.scheduler.slots
    engine.scheduler.check()


def test_an_adapter_that_is_forgotten_while_it_is_copied_leaves_when_it_has_come() -> None:
    """Its rows must not be given to another while the copy writes to them."""
    engine = run(delay=3, slots=1, rows=8)
    gone = new(A)
    engine.add(gone)
    engine.step()
    engine.scheduler.remove(gone)
    engine.scheduler.forget_adapter(A.digest)
    late = new(B)
    engine.add(late)
    for _ in range(3):
        engine.step()
        assert A.digest in engine.scheduler.slots
    assert steps_until(engine, late) <= 6
    assert A.digest not in engine.scheduler.slots
    engine.finish()


def test_an_adapter_that_is_asked_for_again_while_it_was_to_be_forgotten_stays() -> None:
    engine = run(delay=3)
    engine.scheduler.prefetch(A)
    engine.step()
    engine.scheduler.forget_adapter(A.digest)
    engine.add(new(A))
    engine.finish()
    assert loads(engine) == {"a": 1}
    assert A.digest in engine.scheduler.slots


def test_a_place_is_kept_for_whose_weights_are_on_their_way() -> None:
    engine = run(delay=2, max_batch_size=2)
    needs = new(A)
    engine.add(needs, *(new(None, 1) for _ in range(20)))
    assert steps_until(engine, needs) <= 4
    engine.finish()


def test_a_new_version_beside_the_old_one() -> None:
    engine = run(slots=2)
    old, fresh = new(adapter("a@1"), 20), new(adapter("a@2"), 20)
    engine.add(old)
    engine.step()
    engine.step()
    engine.add(fresh)
    engine.step()
    engine.step()
    assert old.row != fresh.row
    assert old.computed and fresh.computed
    engine.finish()
