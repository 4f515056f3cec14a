"""From logits to tokens, for all rows of a step at once.

Invariants: what a row gets depends on its own logits, parameters and tokens, never on the rows beside it; the random
number of a choice is a function of the request's seed and the position only, so a request that is preempted and
computed again, or moved to another pod, goes on with the same tokens; a row whose scores are no probabilities (a weight
or a penalty that overflows) fails by itself, since the rows beside it belong to other people.
"""

import math
from collections import Counter
from collections.abc import Sequence as Rows
from hashlib import blake2b
from itertools import chain
from typing import Final

import numpy as np
import torch

from motet_runtime.engine.sequence import Constraint, RowFailure, SampledToken, SamplingParams, Sequence

_MIN_TEMPERATURE: Final = 1e-6
"""Below this, float32 has no room for the quotient; the answer is the likeliest token long before."""

_FIRST_WIDTH: Final = 128
"""How many tokens to put in order before asking whether they hold the mass wanted: nearly always they do, and ordering
a whole vocabulary takes ten times as long."""

_BLOCK: Final = 128
"""Tokens that a draw adds up as one before it looks at each."""

_NOT_FINITE: Final = "the scores of the next token are not finite: a weight or a penalty overflows"
_NOTHING_ALLOWED: Final = "the grammar of the answer allows no token here, or has become too complex to follow"


class Sampler:
    """Chooses the next tokens. Holds no state of any sequence."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def sample(self, rows: Rows[Sequence], logits: torch.Tensor) -> dict[int, SampledToken | RowFailure]:
        """Choose the next token of each row from logits (rows, vocabulary); returns them by sequence id."""
        # On a processor bfloat16 is slower to search than to convert, and every sum below wants float32.
        logits = logits.float()
        if not any(map(_is_special, rows)):
            return dict(zip((row.id for row in rows), map(_plain, _likeliest(logits)), strict=True))
        shaped = [index for index, row in enumerate(rows) if _is_shaped(row)]
        chosen: list[int | RowFailure] = [RowFailure(_NOT_FINITE)] * len(rows)
        if len(shaped) < len(rows):
            chosen = [RowFailure(_NOT_FINITE) if token < 0 else token for token in _likeliest(logits)]
        if shaped:
            picked = self._shape([rows[index] for index in shaped], logits.index_select(0, self._indices(shaped)))
            for index, token in zip(shaped, picked, strict=True):
                chosen[index] = token
        found = self._report(rows, chosen, logits)
        for row, token in zip(rows, chosen, strict=True):
            if row.constraint is not None and isinstance(token, int):
                row.constraint.advance(token)
        return found

    def _shape(self, rows: Rows[Sequence], scores: torch.Tensor) -> list[int | RowFailure]:
        """Penalise, constrain, warp and choose. `scores` (rows, vocabulary) in float32 is overwritten."""
        self._repetition(rows, scores)
        self._occurrence(rows, scores)
        penalised = scores.amax(dim=-1)
        self._constrain(rows, scores)
        best = scores.amax(dim=-1, keepdim=True)
        chosen: list[int | RowFailure] = [RowFailure(_NOT_FINITE)] * len(rows)
        greedy: list[int] = []
        drawn: list[int] = []
        extremes = torch.stack((penalised, best[:, 0]), dim=1).tolist()
        for index, (row, (before, after)) in enumerate(zip(rows, extremes, strict=True)):
            if math.isfinite(before) and not math.isfinite(after):
                chosen[index] = RowFailure(_NOTHING_ALLOWED)
            elif math.isfinite(before):
                (drawn if row.params.sample else greedy).append(index)
        if greedy:
            likeliest = scores.index_select(0, self._indices(greedy)).argmax(dim=-1).tolist()
            for index, token in zip(greedy, likeliest, strict=True):
                chosen[index] = token
        if drawn:
            where = self._indices(drawn)
            sampled = [rows[index] for index in drawn]
            # Probabilities do not change when all scores are moved, and from zero down no temperature can overflow.
            moved = scores.index_select(0, where).sub_(best.index_select(0, where))
            tokens = self._draw(sampled, self._warp([row.params for row in sampled], moved))
            for index, token in zip(drawn, tokens, strict=True):
                chosen[index] = token
        return chosen

    def _repetition(self, rows: Rows[Sequence], scores: torch.Tensor) -> None:
        """arXiv 1909.05858, as transformers has it: divide what is positive, multiply what is negative.

        It counts the prompt's tokens too.
        """
        punished = [(index, row) for index, row in enumerate(rows) if row.params.repetition_penalty != 1.0]
        if not punished:
            return
        seen = [(index, row, {*row.prompt, *row.output}) for index, row in punished]
        at = self._indices([index for index, _, tokens in seen for _ in tokens])
        tokens = self._indices(list(chain.from_iterable(tokens for _, _, tokens in seen)))
        penalty = self._numbers([row.params.repetition_penalty for row in rows])[at]
        old = scores[at, tokens]
        scores[at, tokens] = torch.where(old < 0, old * penalty, old / penalty)

    def _occurrence(self, rows: Rows[Sequence], scores: torch.Tensor) -> None:
        """OpenAI's penalties: logit minus count * frequency minus presence, over generated tokens."""
        cells: list[tuple[int, int]] = []
        amounts: list[float] = []
        for index, row in enumerate(rows):
            frequency, presence = row.params.frequency_penalty, row.params.presence_penalty
            if frequency or presence:
                counts = Counter(row.output)
                cells += [(index, token) for token in counts]
                amounts += [count * frequency + presence for count in counts.values()]
        if cells:
            at, tokens = torch.tensor(cells, device=self._device).unbind(1)
            scores[at, tokens] -= self._numbers(amounts)

    def _constrain(self, rows: Rows[Sequence], scores: torch.Tensor) -> None:
        """Give -inf to what a grammar does not allow."""
        held = [(index, row.constraint) for index, row in enumerate(rows) if row.constraint is not None]
        if held:
            where = self._indices([index for index, _ in held])
            allowed = _allowed([constraint for _, constraint in held], scores.shape[1]).to(self._device)
            scores.index_copy_(0, where, scores.index_select(0, where).masked_fill_(~allowed, -math.inf))

    def _warp(self, params: Rows[SamplingParams], scores: torch.Tensor) -> torch.Tensor:
        """Temperature, top-k, top-p, typical-p; what they exclude becomes -inf, a row without one passes through."""
        scores = scores / self._numbers([max(one.temperature, _MIN_TEMPERATURE) for one in params])[:, None]
        if any(one.top_k for one in params):
            scores = keep_top_k(scores, self._indices([one.top_k or 0 for one in params]))
        if any(_excludes(one.top_p) for one in params):
            scores = keep_top_p(scores, self._masses([one.top_p for one in params]))
        if any(_excludes(one.typical_p) for one in params):
            scores = keep_typical(scores, self._masses([one.typical_p for one in params]))
        return scores

    def _draw(self, rows: Rows[Sequence], scores: torch.Tensor) -> list[int]:
        """One token a row, by the inverse of the cumulative distribution in order of token id.

        That order, and not the scores', so that a logit that differs in its last digit moves one boundary a little
        where it would otherwise swap two tokens. First a block of tokens, then one of its: adding up blocks takes a
        tenth of the time of a running sum over the vocabulary.
        """
        numbers = [_uniform(row.params.seed, len(row)) for row in rows]
        number = torch.tensor(numbers, dtype=torch.float64, device=self._device)[:, None]
        probabilities = torch.softmax(scores, dim=-1)
        blocks = torch.nn.functional.pad(probabilities, (0, -scores.shape[1] % _BLOCK)).view(len(rows), -1, _BLOCK)
        block, rest = _invert(blocks.sum(dim=-1), number)
        within, _ = _invert(blocks.gather(1, block[:, :, None].expand(-1, 1, _BLOCK))[:, 0], rest)
        drawn: list[int] = (block * _BLOCK + within)[:, 0].tolist()
        return drawn

    def _report(
        self, rows: Rows[Sequence], chosen: Rows[int | RowFailure], logits: torch.Tensor
    ) -> dict[int, SampledToken | RowFailure]:
        """The outcome of each row, with the log-probabilities that it asked for: those before any penalty."""
        found: dict[int, SampledToken | RowFailure] = {}
        asked: list[tuple[Sequence, int]] = []
        places: list[int] = []
        for place, (row, token) in enumerate(zip(rows, chosen, strict=True)):
            if isinstance(token, RowFailure):
                found[row.id] = token
            elif _wants_logprobs(row.params):
                asked.append((row, token))
                places.append(place)
            else:
                found[row.id] = SampledToken(token)
        if asked:
            reports = self._logprobs(asked, logits.index_select(0, self._indices(places)))
            found |= {row.id: report for (row, _), report in zip(asked, reports, strict=True)}
        return found

    def _logprobs(self, asked: Rows[tuple[Sequence, int]], logits: torch.Tensor) -> list[SampledToken]:
        """Rows and their tokens, with log-probabilities from logits (rows, vocabulary)."""
        logprobs = torch.log_softmax(logits, dim=-1)
        own = logprobs.gather(1, self._indices([token for _, token in asked])[:, None])[:, 0].tolist()
        width = min(max(row.params.alternatives for row, _ in asked), logprobs.shape[1])
        values, ids = logprobs.topk(width)
        beside = zip(ids.tolist(), values.tolist(), strict=True)
        at = self._indices([index for index, (row, _) in enumerate(asked) for _ in row.params.scores])
        wanted = self._indices([token for row, _ in asked for token in row.params.scores])
        scores = iter(logprobs[at, wanted].tolist())
        return [
            SampledToken(
                token,
                logprob,
                tuple(zip(ids, values, strict=True))[: row.params.alternatives],
                tuple(next(scores) for _ in row.params.scores),
            )
            for (row, token), logprob, (ids, values) in zip(asked, own, beside, strict=True)
        ]

    def _indices(self, values: Rows[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._device)

    def _numbers(self, values: Rows[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self._device)

    def _masses(self, values: Rows[float | None]) -> torch.Tensor:
        """1 where nothing is to be excluded."""
        return self._numbers([1.0 if value is None else value for value in values])


def keep_top_k(scores: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """Leave each row (of scores (rows, vocabulary)) its `k` (rows) highest and what equals the last; all if k is 0."""
    vocabulary = scores.shape[1]
    k = k.clamp(max=vocabulary)
    highest = scores.topk(int(k.max())).values
    last = highest.gather(1, (k - 1).clamp(min=0)[:, None])
    return scores.masked_fill((scores < last) & (k > 0)[:, None], -math.inf)


def keep_top_p(scores: torch.Tensor, mass: torch.Tensor) -> torch.Tensor:
    """Nucleus sampling (arXiv 1904.09751): leave the likeliest tokens that together reach `mass` (rows); all if 1.

    Tokens of one score stay or go together, as they do with top-k, so that no order of a sort shows in the answer.
    """
    last = _last_within(-scores, torch.softmax(scores, dim=-1), mass)
    return scores.masked_fill(-scores > last, -math.inf)


def keep_typical(scores: torch.Tensor, mass: torch.Tensor) -> torch.Tensor:
    """Locally typical sampling (arXiv 2202.00666): leave tokens of about the expected surprise that reach `mass`."""
    logprobs = torch.log_softmax(scores, dim=-1)
    probabilities = logprobs.exp()
    entropy = -(logprobs * probabilities).nansum(dim=-1, keepdim=True)
    distance = (-logprobs - entropy).abs()
    last = _last_within(distance, probabilities, mass)
    return scores.masked_fill(distance > last, -math.inf)


def _last_within(
    keys: torch.Tensor, probabilities: torch.Tensor, mass: torch.Tensor, *, width: int = _FIRST_WIDTH
) -> torch.Tensor:
    """The key (rows, 1) of the last of the tokens that, in ascending order of key, are needed to reach `mass` (rows).

    Infinite where `mass` is 1. Puts `width` tokens in order, and more only for the rows that need more, which changes
    nothing about the answer.
    """
    width = min(width, keys.shape[1])
    ordered, ids = keys.topk(width, largest=False)
    reached = probabilities.gather(1, ids).cumsum(dim=-1)
    place = (reached < mass[:, None]).sum(dim=-1, keepdim=True).clamp(max=width - 1)
    last = ordered.gather(1, place).masked_fill(mass[:, None] >= 1.0, math.inf)
    if width < keys.shape[1]:
        short = ((reached[:, -1] < mass) & (mass < 1.0)).nonzero()[:, 0]
        if len(short):
            rest = [each.index_select(0, short) for each in (keys, probabilities, mass)]
            last[short] = _last_within(*rest, width=8 * width)
    return last


def _invert(weights: torch.Tensor, number: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where `number` (rows, 1), from 0 to below 1, falls among weights (rows, n), and how far into that one's share.

    Both (rows, 1). A weight of zero is never met: it is left out, as a device may add in an order in which the running
    sum rises there by a rounding.
    """
    weights = weights.double()
    reached = weights.cumsum(dim=-1)
    real = reached.masked_fill(weights == 0, -1.0)
    target = number * real.amax(dim=-1, keepdim=True)
    index = (real > target).int().argmax(dim=-1, keepdim=True)
    share = weights.gather(1, index)
    rest = (target - (reached.gather(1, index) - share)) / share
    return index, rest.clamp(0.0, 1.0 - 2.0**-52)


def _allowed(constraints: Rows[Constraint], vocabulary: int) -> torch.Tensor:
    """Which tokens may come next: boolean (constraints, vocabulary). What a mask does not cover may not."""
    masks = np.zeros((len(constraints), -(-vocabulary // 8)), dtype=np.uint8)
    for mask, constraint in zip(masks, constraints, strict=True):
        words = np.asarray(constraint.allowed()).astype("<u4", copy=False).view(np.uint8)[: len(mask)]
        mask[: len(words)] = words
    return torch.from_numpy(np.unpackbits(masks, axis=1, count=vocabulary, bitorder="little")).bool()


def _likeliest(logits: torch.Tensor) -> list[int]:
    """The likeliest token of each row, -1 where that is no number: then none of the row's probabilities is one."""
    best, ids = logits.max(dim=-1)
    chosen: list[int] = ids.masked_fill(~best.isfinite(), -1).tolist()
    return chosen


def _plain(token: int) -> SampledToken | RowFailure:
    return RowFailure(_NOT_FINITE) if token < 0 else SampledToken(token)


def _is_shaped(row: Sequence) -> bool:
    """Whether more than the row's logits decides on its token."""
    params = row.params
    penalties = params.repetition_penalty != 1.0 or params.frequency_penalty or params.presence_penalty
    return bool(params.sample or row.constraint is not None or penalties)


def _wants_logprobs(params: SamplingParams) -> bool:
    return bool(params.logprobs or params.alternatives or params.scores)


def _is_special(row: Sequence) -> bool:
    return _is_shaped(row) or _wants_logprobs(row.params)


def _excludes(mass: float | None) -> bool:
    return mass is not None and mass < 1.0


def _uniform(seed: int, position: int) -> float:
    """A number from 0 to below 1: 52 bits of a hash, so that its product with a sum is below that sum."""
    digest = blake2b(f"{seed}:{position}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 12) / 2**52
