"""A prefix that somebody has computed, or is computing, is computed once; and by nobody to whom it means another."""

import pytest

from motet_runtime.engine.sequence import Adapter, Sequence
from tests.runtime.engine_runs import Run, adapter, run, sequence

SIZE = 4
PREFIX = list(range(500, 516))


def following(number: int, acting: Adapter | None = None, new_tokens: int = 1, **params: int) -> Sequence:
    """The shared prefix, then tokens of its own."""
    return sequence(number, [*PREFIX, *range(10 * number, 10 * number + 5)], new_tokens, acting, **params)


def computed(engine: Run, *sequences: Sequence) -> dict[int, int]:
    """Run them to their ends; how many tokens of each were computed."""
    engine.add(*sequences)
    tokens = {one.id: 0 for one in sequences}
    while engine.scheduler.running or engine.scheduler.waiting:
        for chunk in engine.step().chunks:
            tokens[chunk.sequence.id] += chunk.count
    engine.check_empty()
    return tokens


def test_a_prefix_of_a_finished_request_is_not_computed_again() -> None:
    engine, one, other = run(), following(1), following(2)
    assert computed(engine, one) == {1: 21}
    assert computed(engine, other) == {2: 5}
    assert (one.cached, other.cached) == (0, 16)
    pool = engine.scheduler.pool
    assert (pool.looked_up_tokens, pool.hit_tokens) == (42, 16)


def test_the_second_waits_for_the_first_and_then_shares() -> None:
    engine = run(max_step_tokens=8)
    engine.add(following(1), following(2), following(3))
    for _ in range(2):
        assert {number for number, _, _ in engine.rows()} == {1}
    assert {number for number, _, _ in engine.rows()} == {1, 2}, "its blocks are there, its end is not"
    engine.finish()
    assert engine.scheduler.pool.hit_tokens == 32


def test_it_does_not_wait_longer_than_for_what_it_shares() -> None:
    engine = run(max_step_tokens=8)
    engine.add(sequence(1, [*PREFIX[:8], *range(40)]), sequence(2, [*PREFIX[:8], 900, 901]))
    assert engine.rows() == [(1, 0, 8)]
    assert (2, 8, 2) in engine.rows()


def test_whoever_shares_nothing_goes_on_meanwhile() -> None:
    engine = run(max_step_tokens=8)
    engine.add(following(1), following(2), sequence(3, 4, adapter=adapter("a")))
    engine.step()
    engine.step()
    assert 3 in {number for number, _, _ in engine.rows()} | {one.id for one in engine.finished}


def test_when_the_first_is_gone_the_second_computes_it_itself() -> None:
    engine = run(max_step_tokens=8)
    first, second = following(1), following(2)
    engine.add(first, second)
    engine.step()
    engine.scheduler.remove(first)
    engine.finish()
    assert engine.finished == [second]
    assert second.cached == 8, "what was computed till then stays of use"


def test_versions_share_nothing_with_each_other_or_with_the_base() -> None:
    engine = run()
    owners = [None, adapter("a@1"), adapter("a@2"), adapter("b@1")]
    tokens = computed(engine, *(following(number, owner) for number, owner in enumerate(owners)))
    assert set(tokens.values()) == {21}
    assert computed(engine, following(9, adapter("a@2"))) == {9: 5}


def test_one_digest_under_two_names_shares() -> None:
    engine = run()
    twin = Adapter(adapter("b").id, adapter("a").digest, 8)
    assert computed(engine, following(1, adapter("a"))) == {1: 21}
    assert computed(engine, following(2, twin)) == {2: 5}


@pytest.mark.parametrize(("invoked_at", "shared"), [(16, 16), (15, 12), (12, 12), (9, 8), (3, 0), (0, 0)], ids=str)
def test_an_activated_lora_shares_the_bases_blocks_up_to_its_invocation_only(invoked_at: int, shared: int) -> None:
    prompt = [*PREFIX, *range(8)]
    prompt[invoked_at] = 7777
    engine = run()
    computed(engine, sequence(1, prompt, 1))
    assert computed(engine, sequence(2, prompt, 1, adapter("a", invocation=(7777,)))) == {2: 24 - shared}
    assert computed(engine, sequence(3, prompt, 1, adapter("b", invocation=(7777,)))) == {3: 24 - shared}
    again = [*prompt, 1]
    assert computed(engine, sequence(4, again, 1)) == {4: 1}, "nor does the base see what an adapter wrote"


def test_a_panel_of_activated_loras_computes_its_input_once() -> None:
    engine = run(max_step_tokens=32, max_batch_size=16, blocks=256)
    panel = [
        sequence(number, [*range(100), 7777, number], 1, adapter(f"judge-{number}", invocation=(7777,)))
        for number in range(1, 9)
    ]
    tokens = computed(engine, *panel)
    assert sorted(tokens.values()) == [2] * 7 + [102]


def test_the_same_prompt_with_a_later_invocation_does_not_share_what_was_computed_from_the_earlier() -> None:
    acting = adapter("a", invocation=(7,))
    engine = run()
    early = sequence(1, [1, 7, 2, 3, 4, 5, 6, 7, 8, 9], 1, acting)
    early.acts_from = 1
    computed(engine, early)
    late = sequence(2, [1, 7, 2, 3, 4, 5, 6, 7, 8, 9], 1, acting)
    assert late.acts_from == 7
    assert computed(engine, late) == {2: 10}


def test_the_last_token_is_always_computed() -> None:
    engine = run()
    computed(engine, sequence(1, PREFIX, 1))
    assert computed(engine, sequence(2, PREFIX, 1)) == {2: 4}


def test_an_answer_is_a_prefix_as_well() -> None:
    engine = run()
    one = sequence(1, PREFIX, 9)
    computed(engine, one)
    assert computed(engine, sequence(2, [*PREFIX, *one.output[:8], 5], 1)) == {2: 1}


@pytest.mark.parametrize(("wanted", "cached"), [(1, 0), (9, 8), (12, 8), (13, 12), (17, 16)])
def test_where_log_probabilities_are_wanted_nothing_comes_from_the_cache(wanted: int, cached: int) -> None:
    engine = run()
    computed(engine, following(1))
    one = following(2, prompt_logprobs_from=wanted)
    computed(engine, one)
    assert one.cached == cached


def test_a_shared_prefix_stays_while_one_of_two_needs_it() -> None:
    engine = run(blocks=16, max_batch_size=4)
    one, other = following(1, new_tokens=2), following(2, new_tokens=30)
    engine.add(one)
    engine.step()
    engine.add(other)
    while one not in engine.finished:
        engine.step()
    shared = other.blocks[:4]
    engine.add(sequence(5, 8), sequence(6, 8))
    engine.step()
    held = [block for running in engine.scheduler._running if running is not other for block in running.blocks]
    assert not set(shared) & set(held)
    engine.finish()


def test_a_prefix_is_given_up_for_blocks_that_are_needed() -> None:
    engine = run(blocks=8)
    computed(engine, following(1))
    assert computed(engine, sequence(7, 31, 1)) == {7: 31}
    assert computed(engine, following(2)) == {2: 21}


def test_short_of_blocks_a_request_does_not_evict_the_prefix_that_it_shares() -> None:
    engine = run(blocks=6)
    computed(engine, following(1))
    assert computed(engine, following(2, new_tokens=3)) == {2: 7}
