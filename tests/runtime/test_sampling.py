"""The sampler against transformers' warpers, against the probabilities it should follow, and row beside row."""

import math
from collections import Counter
from collections.abc import Sequence as Rows

import pytest
import torch
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from motet_runtime.engine.sampling import Sampler, keep_top_k, keep_top_p, keep_typical
from motet_runtime.engine.sequence import RowFailure, SampledToken, SamplingParams, Sequence

CPU = torch.device("cpu")
VOCABULARY = 1500
"""More than is put in order at first."""


def scores(rows: int, *, vocabulary: int = VOCABULARY, spread: float = 3.0, seed: int = 0) -> torch.Tensor:
    return spread * torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed))


def row(number: int = 0, *, prompt: Rows[int] = (1, 2), output: Rows[int] = (), **params: object) -> Sequence:
    return Sequence(number, tuple(prompt), SamplingParams(max_new_tokens=9, **params), output=list(output))  # type: ignore[arg-type]


def sample(rows: Rows[Sequence], logits: torch.Tensor) -> list[SampledToken]:
    found = Sampler(CPU).sample(rows, logits)
    tokens = [found[one.id] for one in rows]
    assert all(isinstance(token, SampledToken) for token in tokens)
    return tokens  # type: ignore[return-value]


class Mask:
    """A constraint that allows some tokens and keeps what it is told."""

    def __init__(self, *tokens: int, words: int = 2) -> None:
        self.words = [sum(1 << token % 32 for token in tokens if token // 32 == at) for at in range(words)]
        self.told: list[int] = []

    def allowed(self) -> list[int]:
        return self.words

    def advance(self, token: int) -> None:
        self.told.append(token)


# transformers


def expected(params: SamplingParams, history: Rows[int], logits: torch.Tensor) -> torch.Tensor:
    """What transformers makes of one row."""
    ids, logits = torch.tensor([list(history)]), logits[None].clone()
    if params.repetition_penalty != 1.0:
        logits = RepetitionPenaltyLogitsProcessor(params.repetition_penalty)(ids, logits)
    if params.sample and params.temperature != 1.0:
        logits = TemperatureLogitsWarper(params.temperature)(ids, logits)
    if params.sample and params.top_k:
        logits = TopKLogitsWarper(params.top_k)(ids, logits)
    if params.sample and params.top_p is not None and params.top_p < 1.0:
        logits = TopPLogitsWarper(params.top_p)(ids, logits)
    if params.sample and params.typical_p is not None and params.typical_p < 1.0:
        logits = TypicalLogitsWarper(params.typical_p)(ids, logits)
    return logits[0]


@pytest.mark.parametrize("spread", [0.1, 1.0, 6.0], ids=["flat", "even", "peaked"])
def test_each_warper_keeps_what_transformers_keeps(spread: float) -> None:
    logits = scores(12, spread=spread)
    ids = torch.ones(12, 1, dtype=torch.int64)
    for k in (1, 2, 50, VOCABULARY, 10 * VOCABULARY):
        kept = keep_top_k(logits, torch.full((12,), k))
        assert torch.equal(kept, TopKLogitsWarper(k)(ids, logits))
    for mass in (0.0, 1e-6, 0.3, 0.9, 0.99):
        kept = keep_top_p(logits, torch.full((12,), mass))
        assert torch.equal(kept, TopPLogitsWarper(mass)(ids, logits))
    for mass in (1e-6, 0.3, 0.9, 0.99):
        kept = keep_typical(logits, torch.full((12,), mass))
        assert torch.equal(kept, TypicalLogitsWarper(mass)(ids, logits))


MIXED: list[dict[str, object]] = [
    {},
    {"sample": True},
    {"sample": True, "temperature": 0.7},
    {"sample": True, "top_k": 40},
    {"sample": True, "top_p": 0.8},
    {"sample": True, "typical_p": 0.6},
    {"sample": True, "top_p": 1.0, "typical_p": 1.0, "top_k": VOCABULARY},
    {"sample": True, "temperature": 1.5, "top_k": 300, "top_p": 0.95, "typical_p": 0.9},
    {"sample": True, "temperature": 0.4, "top_p": 0.5, "repetition_penalty": 1.3},
    {"repetition_penalty": 0.5},
    {"sample": True, "top_k": 1, "repetition_penalty": 2.0},
]


def test_a_mixed_batch_draws_from_what_transformers_leaves_and_in_its_proportions() -> None:
    """With the same random number the token is the one at which transformers' cumulative probability passes it."""
    for seed in range(12):
        logits = scores(len(MIXED), seed=seed)
        rows = [row(n, prompt=range(n, 99), output=(5, 5, 700), seed=seed, **kind) for n, kind in enumerate(MIXED)]
        alone = [sample([one], logits[n : n + 1])[0].id for n, one in enumerate(rows)]
        together = [token.id for token in sample(rows, logits)]
        assert together == alone
        numbers = drawn_numbers(rows)
        for one, own, token, number in zip(rows, logits, together, numbers, strict=True):
            left = expected(one.params, [*one.prompt, *one.output], own)
            if not one.params.sample:
                assert token == int(left.argmax())
                continue
            assert left[token] > -math.inf
            reached = left.double().softmax(-1).cumsum(-1)
            before = float(reached[token - 1]) if token else 0.0
            assert before - 2e-5 <= number <= float(reached[token]) + 1e-6


def drawn_numbers(rows: Rows[Sequence]) -> list[float]:
    """The random number of each row, read off what it draws from many equal tokens."""
    fair = [Sequence(one.id, one.prompt, SamplingParams(9, sample=True, seed=one.params.seed)) for one in rows]
    for one, like in zip(fair, rows, strict=True):
        one.output.extend(like.output)
    found = Sampler(CPU).sample(fair, torch.zeros(1, 1 << 16).expand(len(rows), -1))
    return [token.id / (1 << 16) for token in found.values() if isinstance(token, SampledToken)]


def test_equal_scores_stay_or_go_together() -> None:
    tied = torch.tensor([[1.0, 3.0, 2.0, 2.0, 2.0, 0.0]])
    for kept in (keep_top_k(tied, torch.tensor([2])), keep_top_p(tied, torch.tensor([0.5]))):
        assert (kept[0] > -math.inf).tolist() == [False, True, True, True, True, False]


# Penalties


@pytest.mark.parametrize(
    ("params", "likeliest"),
    [
        ({}, 0),
        ({"repetition_penalty": 1.1}, 0),
        ({"repetition_penalty": 1.3}, 3),
        ({"presence_penalty": 0.15}, 0),
        ({"presence_penalty": 2.0}, 2),
        ({"frequency_penalty": 0.15}, 1),
        ({"frequency_penalty": 2.0}, 2),
        ({"presence_penalty": -1.0, "repetition_penalty": 1.3}, 0),
    ],
    ids=str,
)
def test_penalties_by_hand(params: dict[str, object], likeliest: int) -> None:
    """0 was generated twice and 1 once, 2 is in the prompt: repetition counts that, OpenAI's penalties do not."""
    logits = torch.tensor([[4.0, 3.9, 3.5, 3.3, -1.0]])
    one = row(prompt=(2, 4), output=(0, 1, 0), **params)
    assert sample([one], logits)[0].id == likeliest


def test_penalties_multiply_what_is_negative_and_count_occurrences() -> None:
    """The proportions of many draws show the scores after the penalties."""
    logits = torch.tensor([[1.0, -1.0, 0.5, 0.0]])
    penalised = torch.tensor([1.0 / 1.5, -1.0 * 1.5 - 2 * 0.4 - 0.3, 0.5, 0.0 - 0.4 - 0.3])
    params = {"sample": True, "repetition_penalty": 1.5, "frequency_penalty": 0.4, "presence_penalty": 0.3}
    rows = [row(n, prompt=(0,), output=(1, 3, 1), seed=n, **params) for n in range(20_000)]
    counts = Counter(token.id for token in sample(rows, logits.expand(len(rows), -1)))
    assert chi_square(counts, penalised.softmax(-1), len(rows)) < 16.3


# Draws


def chi_square(counts: Counter[int], probabilities: torch.Tensor, draws: int) -> float:
    """Below 16.3 (3 degrees of freedom) or 53.6 (24) but once in a thousand; the seeds here are fixed."""
    return sum(
        (counts[token] - draws * p) ** 2 / (draws * p) for token, p in enumerate(probabilities.tolist()) if p > 0
    )


@pytest.mark.parametrize("vary", ["seed", "position"])
def test_tokens_come_in_proportion_to_their_probability(vary: str) -> None:
    logits = torch.full((1, 400), -math.inf)
    places = torch.arange(25) * 16
    logits[0, places] = torch.linspace(-2, 1, 25)
    draws = 4000
    rows = [
        row(n, seed=n, sample=True) if vary == "seed" else row(n, seed=4, sample=True, prompt=range(n))
        for n in range(draws)
    ]
    counts = Counter(token.id for token in sample(rows, logits.expand(draws, -1)))
    assert set(counts) <= set(places.tolist())
    by_place = Counter({place: counts[at] for place, at in enumerate(places.tolist())})
    assert chi_square(by_place, logits[0, places].softmax(-1), draws) < 53.6


def test_a_token_without_probability_is_never_drawn() -> None:
    logits = torch.full((1, 700), -math.inf)
    logits[0, [3, 130, 600]] = torch.tensor([0.0, -40.0, -1.0])
    rows = [row(n, seed=n, sample=True) for n in range(5000)]
    assert {token.id for token in sample(rows, logits.expand(5000, -1))} == {3, 600}


def test_the_choice_is_a_function_of_seed_and_position() -> None:
    logits = scores(1, spread=1.0)

    def pick(seed: int, length: int, beside: int = 0, prompt: int = 2) -> int:
        one = row(0, seed=seed, sample=True, prompt=[1] * prompt, output=[1] * (length - prompt))
        others = [row(1 + n, seed=n, sample=True, top_p=0.5) for n in range(beside)]
        return sample([*others, one], logits.expand(1 + beside, -1))[-1].id

    first = pick(seed=7, length=20)
    assert pick(seed=7, length=20, beside=9) == first
    # Computed again after a preemption, or elsewhere, what was generated may have become the prompt.
    assert pick(seed=7, length=20, prompt=15) == first
    assert len({pick(seed=7, length=length) for length in range(10, 40)}) > 15
    assert len({pick(seed=seed, length=20) for seed in range(-5, 25)}) > 15


def test_moving_the_scores_leaves_the_choice_of_a_seed_as_it_was() -> None:
    logits = torch.linspace(-3, 3, 50)[None].expand(20, -1)
    rows = [row(n, seed=n, sample=True, temperature=1.3, top_k=20, top_p=0.9, typical_p=0.95) for n in range(20)]
    picks = [[token.id for token in sample(rows, logits + offset)] for offset in (0.0, 40.0)]
    assert picks[0] == picks[1]
    assert len(set(picks[0])) > 3


@pytest.mark.parametrize("temperature", [1e-40, 1e-6, 1e-3])
def test_a_temperature_near_zero_takes_the_likeliest_token(temperature: float) -> None:
    logits = torch.tensor([[1.0, 900.0, 3.0, 899.0]])
    assert sample([row(sample=True, temperature=temperature)], logits)[0].id == 1


# Log-probabilities


def test_log_probabilities_come_for_the_rows_that_ask_and_are_those_before_any_penalty() -> None:
    logits = scores(5)
    logprobs = logits.log_softmax(-1)
    plain, own, ranked, scored, warped = sample(
        [
            row(0),
            row(1, logprobs=True),
            row(2, alternatives=3),
            row(3, scores=(5, 900, 5)),
            row(4, logprobs=True, alternatives=1, sample=True, temperature=0.3, top_k=4, repetition_penalty=1.4),
        ],
        logits,
    )
    assert math.isnan(plain.logprob) and plain.alternatives == plain.scores == ()
    assert own.logprob == pytest.approx(float(logprobs[1, own.id])) and own.alternatives == ()
    values, ids = logprobs[2].topk(3)
    assert [token for token, _ in ranked.alternatives] == ids.tolist()
    assert [value for _, value in ranked.alternatives] == pytest.approx(values.tolist())
    assert ranked.id == ids[0] and ranked.logprob == pytest.approx(float(values[0]))
    assert scored.scores == pytest.approx([float(logprobs[3, token]) for token in (5, 900, 5)])
    assert warped.logprob == pytest.approx(float(logprobs[4, warped.id]))
    assert warped.alternatives == ((int(logprobs[4].argmax()), pytest.approx(float(logprobs[4].max()))),)


def test_more_alternatives_than_tokens_are_all_tokens() -> None:
    (token,) = sample([row(alternatives=9)], scores(1, vocabulary=4))
    assert sorted(identity for identity, _ in token.alternatives) == [0, 1, 2, 3]


def test_half_precision_is_no_different() -> None:
    logits = scores(3).bfloat16()
    rows = [row(0), row(1, logprobs=True), row(2, sample=True, top_p=0.9)]
    assert repr(sample(rows, logits)) == repr(sample(rows, logits.float()))


# Constraints


def test_a_constraint_holds_whatever_the_scores_and_hears_the_choice() -> None:
    """Two words cover 64 tokens; those beyond are not allowed."""
    logits = torch.arange(100.0).expand(4, -1)
    masks = [Mask(3, 33, 40), Mask(3, 33, 40), Mask(63, words=9)]
    rows = [row(0), row(1, sample=True, temperature=50.0, top_k=2), row(2, repetition_penalty=1.1), row(3)]
    for one, mask in zip(rows, masks, strict=False):
        one.constraint = mask
    tokens = [token.id for token in sample(rows, logits)]
    assert tokens[0] == 40 and tokens[1] in (33, 40) and tokens[2:] == [63, 99]
    assert [mask.told for mask in masks] == [[token] for token in tokens[:3]]


def test_a_mask_may_be_wider_than_the_scores() -> None:
    one = row()
    one.constraint = Mask(2, 50, words=2)
    assert sample([one], torch.zeros(1, 37))[0].id == 2


# Failures


@pytest.mark.parametrize("kind", [{}, {"sample": True}, {"logprobs": True}, {"presence_penalty": 0.5}], ids=str)
@pytest.mark.parametrize("value", [math.nan, math.inf, "all"])
def test_scores_that_are_no_numbers_fail_their_row_alone(kind: dict[str, object], value: float | str) -> None:
    logits = scores(3)
    rows = [row(n, seed=n, output=(4,), **kind) for n in range(3)]
    alone = sample([rows[0], rows[2]], logits[[0, 2]])
    if value == "all":
        logits[1] = -math.inf
    else:
        logits[1, 7] = value
    found = Sampler(CPU).sample(rows, logits)
    failed = found[1]
    assert isinstance(failed, RowFailure) and "not finite" in failed.message
    assert repr([found[0], found[2]]) == repr(alone)


def test_a_penalty_that_overflows_and_a_mask_of_nothing_fail_their_own_rows() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0, 4.0]]).expand(4, -1)
    rows = [
        row(0, sample=True, repetition_penalty=1e-44),
        row(1),
        row(2, sample=True),
        row(3, repetition_penalty=1e-44),
    ]
    rows[1].constraint, rows[2].constraint = Mask(), Mask(1)
    found = Sampler(CPU).sample(rows, logits)
    for number, says in ((0, "not finite"), (1, "allows no token"), (3, "not finite")):
        failed = found[number]
        assert isinstance(failed, RowFailure) and says in failed.message
    assert rows[1].constraint.told == []
    assert isinstance(found[2], SampledToken) and found[2].id == 1


def test_infinite_scores_of_some_tokens_are_no_failure() -> None:
    logits = torch.tensor([[-math.inf, 1.0, 2.0]]).expand(2, -1)
    found = sample([row(0), row(1, sample=True, top_p=0.9, typical_p=0.9, temperature=0.1)], logits)
    assert [token.id for token in found] == [2, 2]
