"""Which tokens of which sequences the next step computes.

Invariant: a step never holds more than `max_step_tokens` tokens nor more than `max_batch_size` sequences; a sequence in
decode gets its one token before any prompt gets a chunk, so a long prompt never makes a running answer wait more than
one chunk; sequences are admitted in order of arrival. Imports no torch.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from motet_runtime.engine.sequence import FinishReason, SampledToken, Sequence


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
        budget = self._max_step_tokens
        chunks: list[Chunk] = []
        for decoding in (True, False):
            for sequence in self._running:
                if (sequence.pending == 1 and sequence.computed > 0) is not decoding or budget == 0:
                    continue
                count = min(sequence.pending, budget)
                budget -= count
                chunks.append(Chunk(sequence, sequence.computed, count, count == sequence.pending))
        chunks.sort(key=lambda chunk: chunk.sequence.adapter or "")
        return Plan(tuple(chunks))

    def update(self, plan: Plan, sampled: Mapping[int, SampledToken]) -> list[Progress]:
        """Take in a step's outcome: sampled tokens by sequence id, for each chunk that samples."""
        progress = []
        for chunk in plan.chunks:
            sequence = chunk.sequence
            sequence.computed += chunk.count
            if not chunk.samples:
                continue
            token = sampled[sequence.id]
            sequence.output.append(token.id)
            finish = self._finish(sequence, token.id)
            if finish:
                self.remove(sequence)
            progress.append(Progress(sequence, token, finish))
        return progress

    def _finish(self, sequence: Sequence, token: int) -> FinishReason | None:
        if token in self._eos_ids and not sequence.params.ignore_eos:
            return FinishReason.EOS
        if len(sequence.output) >= sequence.params.max_new_tokens:
            return FinishReason.LENGTH
        return None
