"""From logits to tokens. Greedy rows take one batched argmax; sampling rows go through transformers' own warpers."""

from collections.abc import Sequence as Rows

import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from motet_runtime.engine.sequence import SampledToken, SamplingParams, Sequence


class Sampler:
    """Chooses tokens; holds one random generator for each sequence that samples."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._generators: dict[int, torch.Generator] = {}

    def sample(self, rows: Rows[Sequence], logits: torch.Tensor) -> dict[int, SampledToken]:
        """Choose the next token of each row from logits (rows, vocabulary); returns them by sequence id."""
        logits = logits.float()
        logprobs = torch.log_softmax(logits, dim=-1)
        chosen = [
            self._choose(sequence, logits[index]) if _is_warped(sequence.params) else None
            for index, sequence in enumerate(rows)
        ]
        greedy = logits.argmax(dim=-1).tolist()
        ids = [best if token is None else token for token, best in zip(chosen, greedy, strict=True)]
        own = logprobs.gather(1, torch.tensor(ids, device=logits.device)[:, None])[:, 0].tolist()
        return {
            sequence.id: SampledToken(ids[index], own[index], _alternatives(sequence.params, logprobs[index]))
            for index, sequence in enumerate(rows)
        }

    def forget(self, sequence: Sequence) -> None:
        """Drop a sequence's generator."""
        self._generators.pop(sequence.id, None)

    def _choose(self, sequence: Sequence, logits: torch.Tensor) -> int:
        params = sequence.params
        history = torch.tensor([[*sequence.prompt, *sequence.output]], device=logits.device)
        scores = _penalised(params, sequence.output, logits)[None]
        scores = _warpers(params)(history, scores)
        if not params.sample:
            return int(scores[0].argmax())
        generator = self._generators.get(sequence.id)
        if generator is None:
            generator = torch.Generator(device=self._device).manual_seed(params.seed)
            self._generators[sequence.id] = generator
        return int(torch.multinomial(torch.softmax(scores[0], dim=-1), 1, generator=generator))


def _is_warped(params: SamplingParams) -> bool:
    penalties = params.repetition_penalty != 1.0 or params.frequency_penalty or params.presence_penalty
    return bool(params.sample or penalties)


def _penalised(params: SamplingParams, output: list[int], logits: torch.Tensor) -> torch.Tensor:
    """OpenAI's penalties: logit minus count * frequency minus presence, over generated tokens."""
    if not output or not (params.frequency_penalty or params.presence_penalty):
        return logits
    counts = torch.bincount(torch.tensor(output, device=logits.device), minlength=logits.shape[0])
    return logits - counts * params.frequency_penalty - (counts > 0) * params.presence_penalty


def _warpers(params: SamplingParams) -> LogitsProcessorList:
    chain = LogitsProcessorList()
    if params.repetition_penalty != 1.0:
        chain.append(RepetitionPenaltyLogitsProcessor(params.repetition_penalty))
    if params.sample:
        if params.temperature != 1.0:
            chain.append(TemperatureLogitsWarper(params.temperature))
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
