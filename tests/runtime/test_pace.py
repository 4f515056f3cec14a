"""How much of a long prompt goes beside running answers is learned from steps."""

import pytest

from motet_runtime.engine.pace import Pace

DECODE, TOKEN, SPAN = 0.02, 0.001, 1000.0


def taught(stretch: float = 2.0, steps: int = 30) -> Pace:
    """A step of answers takes 20 ms, a token of a prompt 1 ms, and twice as much where the prompt is 1000 long."""
    pace = Pace(stretch, SPAN)
    for _ in range(steps):
        pace.observe(DECODE, 4, [])
        pace.observe(DECODE + 10 * TOKEN * (1 + 5 / SPAN), 4, [(0, 10)])
    return pace


def test_before_anything_is_known_a_chunk_is_small() -> None:
    assert Pace(2.0, SPAN).tokens(0) == 32
    assert Pace(2.0, SPAN, least=3).tokens(0) == 12


@pytest.mark.parametrize("stretch", [1.5, 2.0, 3.0])
def test_a_step_grows_by_its_stretch_and_no_more(stretch: float) -> None:
    assert taught(stretch).tokens(0) == pytest.approx((stretch - 1) * DECODE / TOKEN, rel=0.05)


def test_the_further_in_the_less() -> None:
    pace = taught()
    assert pace.tokens(1000) == pytest.approx(pace.tokens(0) / 2, abs=1)
    assert pace.tokens(10**9) == 8, "and never so little that it does not end"


def test_it_follows_a_machine_that_becomes_slower() -> None:
    pace = taught()
    before = pace.tokens(0)
    for _ in range(40):
        pace.observe(DECODE + 10 * 2 * TOKEN, 4, [(0, 10)])
    pace.observe(DECODE, 4, [])
    assert pace.tokens(0) == pytest.approx(before / 2, rel=0.1)


def test_it_looks_at_answers_alone_now_and_then_so_that_their_growth_is_not_the_prompts() -> None:
    pace = taught()
    given = [pace.tokens(0)]
    decode = DECODE
    for _ in range(200):
        decode *= 1.01
        tokens = pace.tokens(0)
        pace.observe(decode + tokens * TOKEN, 4, [(0, tokens)] if tokens else [])
        given.append(tokens)
    alone = [at for at, tokens in enumerate(given) if tokens == 0]
    assert 10 <= len(alone) <= 13
    assert given[-1] > 3 * given[0], "longer steps of answers leave room for more"


def test_a_look_that_others_spoil_is_not_tried_again_at_once() -> None:
    pace = taught()
    for _ in range(40):
        if pace.tokens(0) == 0:
            break
        pace.observe(2 * DECODE, 4, [(0, 10)])
    assert pace.tokens(0) == 0
    pace.observe(2 * DECODE, 4, [(0, 5)])  # a short prompt came
    assert pace.tokens(0) > 0


def test_prompts_alone_teach_what_a_token_costs() -> None:
    pace = Pace(2.0, SPAN)
    pace.observe(100 * TOKEN * (1 + 50 / SPAN), 0, [(0, 100)])
    pace.observe(DECODE, 4, [])
    assert pace.tokens(0) == pytest.approx(DECODE / TOKEN, abs=1)


def test_a_mixed_step_teaches_nothing_while_answers_alone_are_unknown() -> None:
    pace = Pace(2.0, SPAN)
    pace.observe(5.0, 4, [(0, 10)])
    pace.observe(DECODE, 4, [])
    assert pace.tokens(0) == 32


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_a_clock_that_stands_still_does_no_harm(seconds: float) -> None:
    pace = Pace(2.0, SPAN)
    pace.observe(seconds, 4, [])
    pace.observe(seconds, 0, [(0, 10)])
    assert pace.tokens(0) == 32


def test_a_step_that_was_quicker_than_answers_alone_does_no_harm() -> None:
    pace = taught()
    for _ in range(50):
        pace.observe(DECODE / 2, 4, [(0, 10)])
    assert 0 < pace.tokens(0) < 10_000


def test_short_prompts_in_the_step_leave_a_long_one_less_but_not_nothing_for_ever() -> None:
    pace = taught()
    alone = pace.tokens(0)
    assert pace.tokens(0, beside=alone // 2) == pytest.approx(alone / 2, abs=1)
    crowded = []
    for _ in range(20):
        crowded.append(pace.tokens(0, beside=alone))
        pace.tokens(0)  # asked for by the way
        pace.give(crowded[-1])
    assert crowded == [0] * 8 + [8] + [0] * 8 + [8] + [0] * 2
    assert pace.tokens(0) == alone
