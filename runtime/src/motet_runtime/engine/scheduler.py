"""Which tokens of which sequences the next step computes.

Invariant: a step never holds more than `max_step_tokens` tokens nor more than `max_batch_size` sequences; a sequence in
decode gets its one token before any prompt gets a chunk, so a long prompt never makes a running answer wait more than
one chunk; half of what is left goes to the oldest prompt, so that it gets done, and half to the shortest, so that a
sentence does not wait for an hour's transcript; sequences are admitted in order of arrival. Imports no torch.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from motet_runtime.engine.sequence import FinishReason, RowFailure, SampledToken, Sequence


@dataclass(frozen=True, slots=True)
class Chunk:
    """`count` tokens of a sequence from position `start` on; `samples` if the last of them yields a new token."""

    sequence: Sequence
    start: int
    count: int
    samples: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """One step: chunks, those of one adapter side by side."""

    chunks: tuple[Chunk, ...]

    @property
    def tokens(self) -> int:
        """Tokens in the step."""
        return sum(chunk.count for chunk in self.chunks)


@dataclass(frozen=True, slots=True)
class Progress:
    """A new token of a sequence, and why the sequence ended with it, if it did."""

    sequence: Sequence
    token: SampledToken
    finish: FinishReason | None


@dataclass(frozen=True, slots=True)
class Failed:
    """A sequence ended because the engine failed on it."""

    sequence: Sequence
    error: str


class Scheduler:
    """Waiting and running sequences, and the budgets they share."""

    def __init__(self, max_batch_size: int, max_step_tokens: int, eos_ids: Iterable[int]) -> None:
        if max_batch_size < 1 or max_step_tokens < max_batch_size:
            raise ValueError("max_step_tokens must be at least max_batch_size, which must be at least 1")
        self._max_batch_size = max_batch_size
        self._max_step_tokens = max_step_tokens
        self._eos_ids = frozenset(eos_ids)
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []

    @property
    def waiting(self) -> int:
        """Sequences that have not begun."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Sequences in the batch."""
        return len(self._running)

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence."""
        self._waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence, wherever it is; harmless if it has ended."""
        if sequence in self._running:
            self._running.remove(sequence)
        elif sequence in self._waiting:
            self._waiting.remove(sequence)

    def schedule(self) -> Plan:
        """The next step; empty if there is nothing to do."""
        while self._waiting and len(self._running) < self._max_batch_size:
            self._running.append(self._waiting.popleft())
        decoding = [sequence for sequence in self._running if sequence.pending == 1 and sequence.computed > 0]
        prompts = [sequence for sequence in self._running if sequence.pending > 1 or sequence.computed == 0]
        counts = [(sequence, 1) for sequence in decoding]
        counts += _shared(prompts, self._max_step_tokens - len(decoding))
        chunks = [
            Chunk(sequence, sequence.computed, count, count == sequence.pending) for sequence, count in counts if count
        ]
        chunks.sort(key=lambda chunk: chunk.sequence.adapter or "")
        return Plan(tuple(chunks))

    def update(self, plan: Plan, out: Mapping[int, SampledToken | RowFailure]) -> list[Progress | Failed]:
        """Take in a step's outcome by sequence id: a token for each chunk that samples, or why a row failed."""
        outcomes: list[Progress | Failed] = []
        for chunk in plan.chunks:
            sequence, result = chunk.sequence, out.get(chunk.sequence.id)
            if isinstance(result, RowFailure):
                self.remove(sequence)
                outcomes.append(Failed(sequence, result.message))
                continue
            sequence.computed += chunk.count
            if result is None:
                continue
            sequence.output.append(result.id)
            finish = self._finish(sequence, result.id)
            if finish:
                self.remove(sequence)
            outcomes.append(Progress(sequence, result, finish))
        return outcomes

    def _finish(self, sequence: Sequence, token: int) -> FinishReason | None:
        if token in self._eos_ids and not sequence.params.ignore_eos:
            return FinishReason.EOS
        if len(sequence.output) >= sequence.params.max_new_tokens:
            return FinishReason.LENGTH
        return None


def _shared(prompts: list[Sequence], budget: int) -> list[tuple[Sequence, int]]:
    """Tokens for each prompt: half of the budget to the oldest, the rest to the shortest first."""
    counts = dict.fromkeys(prompts, 0)
    if prompts:
        counts[prompts[0]] = min(prompts[0].pending, (budget + 1) // 2)
    for sequence in sorted(prompts, key=lambda sequence: sequence.pending):
        left = budget - sum(counts.values())
        counts[sequence] += min(sequence.pending - counts[sequence], left)
    return list(counts.items())
