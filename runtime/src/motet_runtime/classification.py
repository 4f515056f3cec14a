"""Scores of labels, by one adapter or by a panel of them over one input.

A label's score is the log-probability that the model would write it next; a label of one token is scored in the pass
that reads the prompt. A longer one is read once more behind the prompt, which then comes from the prefix cache. An
adapter with a classification head scores its classes by the head instead.

A panel is simply all its members submitted together. Activated LoRAs (and the base) have the same keys in the prefix
cache up to their invocation, so the first computes the shared input and the others wait for it and read it; plain LoRAs
have keys of their own, and are exact.
"""

import math
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from functools import cache

from motet_api.errors import ErrorCode
from motet_api.identity import AdapterId
from motet_runtime.engine.sequence import SamplingParams, Sequence
from motet_runtime.errors import RequestError
from motet_runtime.generation import Generator


@dataclass(frozen=True, slots=True)
class LabelRequest:
    """A prompt to be judged by one adapter (None: the base). `labels` are token ids of each label; none with a head.

    The fields are what the caller calls the prompt and the labels, for messages.
    """

    prompt: tuple[int, ...]
    adapter: AdapterId | None
    labels: tuple[tuple[int, ...], ...] = ()
    prompt_field: str = "input"
    labels_field: str = "labels"

    @property
    def longest(self) -> int:
        """Most tokens that the engine needs room for."""
        # A label of several tokens is read behind the prompt, and whatever is read has one token of an answer.
        return len(self.prompt) + max((len(label) + (len(label) > 1) for label in self.labels), default=1)


@dataclass(frozen=True, slots=True)
class LabelScores:
    """One judgement.

    `logprobs`: of each label in the order given, or a head's logits, one a class. `probabilities` are theirs alone, and
    sum to one. `cached_tokens` of the prompt were not computed again.
    """

    logprobs: tuple[float, ...]
    probabilities: tuple[float, ...]
    cached_tokens: int


async def score_labels(generator: Generator, requests: Seq[LabelRequest]) -> list[LabelScores]:
    """Judge prompts, all of them together.

    Raises:
        RequestError: labels are missing or outside the vocabulary, an adapter does not suit, or the engine failed.
    """
    sequences = [_first_pass(generator, request) for request in requests]
    first = await generator.finish(sequences)
    tails = [
        (index, place, _second_pass(generator, sequences[index], label))
        for index, request in enumerate(requests)
        for place, label in enumerate(request.labels)
        if len(label) > 1
    ]
    if tails:
        await generator.finish([tail for _, _, tail in tails])
    scores = [_scores(request, token.scores) for request, token in zip(requests, first, strict=True)]
    for index, place, tail in tails:
        scores[index][place] += sum(tail.prompt_logprobs)
    for request, row in zip(requests, scores, strict=True):
        if not all(map(math.isfinite, row)):
            message = f"{request.prompt_field}: the scores by {request.adapter or 'the base'} are not finite"
            raise RequestError(ErrorCode.GENERATION_FAILED, f"{message}: a weight overflows", request.prompt_field)
    return [
        LabelScores(tuple(row), _probabilities(row), sequence.cached)
        for row, sequence in zip(scores, sequences, strict=True)
    ]


class PromptReader:
    """Tokens of prompts and of the labels behind them.

    One serves one call: each text is read once, however many members of a panel share it.
    """

    def __init__(self, generator: Generator) -> None:
        self._encode = cache(generator.encode)

    def prompt(self, text: str, suffix: str) -> tuple[int, ...]:
        """Tokens of a text and what comes behind it: apart, so that a shared text has the same tokens everywhere."""
        return (*self._encode(text, True), *(self._encode(suffix, False) if suffix else ()))

    def label(self, text: str, suffix: str, label: str, field: str) -> tuple[int, ...]:
        """The tokens that a label adds to a prompt; `field` is what the caller calls the labels.

        Raises:
            RequestError: the label adds none.
        """
        context, special = (suffix, False) if suffix else (text, True)
        before, whole = self._encode(context, special), self._encode(context + label, special)
        # Where label and prompt would merge into one token, the label's own tokens are the ones that can follow.
        ids = whole[len(before) :] if whole[: len(before)] == before else self._encode(label, False)
        if not label or not ids:
            message = f"{field}: an empty label cannot be scored: leave it out"
            raise RequestError(ErrorCode.INVALID_REQUEST, message, field)
        return tuple(ids)


def _first_pass(generator: Generator, request: LabelRequest) -> Sequence:
    tokens = tuple(dict.fromkeys(label[0] for label in request.labels))
    if any(not 0 <= token < generator.vocabulary for label in request.labels for token in label):
        message = f"{request.labels_field}: a label has a token that the model has no score for: choose another"
        raise RequestError(ErrorCode.INVALID_REQUEST, message, request.labels_field)
    params = SamplingParams(max_new_tokens=1, ignore_eos=True, scores=tokens)
    sequence = generator.sequence(request.prompt, params, request.adapter, request.prompt_field)
    head = bool(sequence.adapter and sequence.adapter.head_labels)
    if head == bool(tokens):
        message = (
            f"{request.adapter} has a classification head with classes of its own: leave the labels out"
            if head
            else "give at least one label to score"
        )
        raise RequestError(ErrorCode.INVALID_REQUEST, f"{request.labels_field}: {message}", request.labels_field)
    return sequence


def _second_pass(generator: Generator, first: Sequence, label: tuple[int, ...]) -> Sequence:
    params = SamplingParams(max_new_tokens=1, ignore_eos=True, prompt_logprobs_from=len(first.prompt) + 1)
    adapter = first.adapter.id if first.adapter else None
    sequence = generator.sequence(first.prompt + label, params, adapter, "labels")
    # The label is part of the answer: an invocation in it would be none.
    sequence.acts_from = first.acts_from
    return sequence


def _scores(request: LabelRequest, scores: tuple[float, ...]) -> list[float]:
    if not request.labels:
        return list(scores)
    by_token = dict(zip(dict.fromkeys(label[0] for label in request.labels), scores, strict=True))
    return [by_token[label[0]] for label in request.labels]


def _probabilities(scores: Seq[float]) -> tuple[float, ...]:
    highest = max(scores)
    weights = [math.exp(score - highest) for score in scores]
    return tuple(weight / sum(weights) for weight in weights)
