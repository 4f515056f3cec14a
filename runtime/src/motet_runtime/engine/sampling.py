"""From logits to tokens. Greedy rows take one batched argmax; sampling rows go through transformers' own warpers.

A row whose scores are no probabilities (a weight or a penalty that overflows) fails by itself: the rows beside it
belong to other people.
"""

import math
from collections.abc import Sequence as Rows
from typing import Final

import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from motet_runtime.engine.sequence import RowFailure, SampledToken, SamplingParams, Sequence

_MIN_TEMPERATURE: Final = 1e-6
"""Below this, float32 has no room for the quotient; the answer is the likeliest token long before."""


class Sampler:
    """Chooses tokens; holds one random generator for each sequence that samples."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._generators: dict[int, torch.Generator] = {}

    def sample(self, rows: Rows[Sequence], logits: torch.Tensor) -> dict[int, SampledToken | RowFailure]:
        """Choose the next token of each row from logits (rows, vocabulary); returns them by sequence id."""
        logits = logits.float()
        logprobs = torch.log_softmax(logits, dim=-1)
        chosen = [
            self._choose(sequence, logits[index]) if _is_warped(sequence.params) else None
            for index, sequence in enumerate(rows)
        ]
        greedy = logits.argmax(dim=-1).tolist()
        ids = [best if token is None else token for token, best in zip(chosen, greedy, strict=True)]
        own = logprobs.gather(1, torch.tensor(ids, device=logits.device).clamp(min=0)[:, None])[:, 0].tolist()
        return {
            sequence.id: SampledToken(ids[index], own[index], _alternatives(sequence.params, logprobs[index]))
            if ids[index] >= 0 and math.isfinite(own[index])
            else RowFailure("the scores of the next token are not finite: a weight or a penalty overflows")
            for index, sequence in enumerate(rows)
        }

    def forget(self, sequence: Sequence) -> None:
        """Drop a sequence's generator."""
        self._generators.pop(sequence.id, None)

    def _choose(self, sequence: Sequence, logits: torch.Tensor) -> int:
        """The token, or -1 where the scores are no probabilities."""
        params = sequence.params
        history = torch.tensor([[*sequence.prompt, *sequence.output]], device=logits.device)
        scores = _penalised(params, sequence.output, logits)[None]
        scores = _penalties(params)(history, scores)
        if not params.sample:
            return -1 if torch.isnan(scores).any() else int(scores[0].argmax())
        # Probabilities do not change when all scores are moved, and from zero down no temperature can overflow.
        probabilities = torch.softmax(_warpers(params)(history, scores - scores.max())[0], dim=-1)
        if torch.isnan(probabilities).any():
            return -1
        generator = self._generators.get(sequence.id)
        if generator is None:
            generator = torch.Generator(device=self._device).manual_seed(params.seed)
            self._generators[sequence.id] = generator
        return int(torch.multinomial(probabilities, 1, generator=generator))


def _is_warped(params: SamplingParams) -> bool:
    penalties = params.repetition_penalty != 1.0 or params.frequency_penalty or params.presence_penalty
    return bool(params.sample or penalties)


def _penalised(params: SamplingParams, output: list[int], logits: torch.Tensor) -> torch.Tensor:
    """OpenAI's penalties: logit minus count * frequency minus presence, over generated tokens."""
    if not output or not (params.frequency_penalty or params.presence_penalty):
        return logits
    counts = torch.bincount(torch.tensor(output, device=logits.device), minlength=logits.shape[0])
    return logits - counts * params.frequency_penalty - (counts > 0) * params.presence_penalty


def _penalties(params: SamplingParams) -> LogitsProcessorList:
    chain = LogitsProcessorList()
    if params.repetition_penalty != 1.0:
        chain.append(RepetitionPenaltyLogitsProcessor(params.repetition_penalty))
    return chain


def _warpers(params: SamplingParams) -> LogitsProcessorList:
    chain = LogitsProcessorList()
    if params.temperature != 1.0:
        chain.append(TemperatureLogitsWarper(max(params.temperature, _MIN_TEMPERATURE)))
    if params.top_k is not None:
        chain.append(TopKLogitsWarper(params.top_k))
    if params.top_p is not None and params.top_p < 1.0:
        chain.append(TopPLogitsWarper(params.top_p))
    if params.typical_p is not None and params.typical_p < 1.0:
        chain.append(TypicalLogitsWarper(params.typical_p))
    return chain


def _alternatives(params: SamplingParams, logprobs: torch.Tensor) -> tuple[tuple[int, float], ...]:
    if not params.alternatives:
        return ()
    values, ids = logprobs.topk(min(params.alternatives, logprobs.shape[0]))
    return tuple(zip(ids.tolist(), values.tolist(), strict=True))
