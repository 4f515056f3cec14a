"""What passes between scheduler and runner: one step's work, and what became of it. Imports no torch."""

from dataclasses import dataclass

from motet_runtime.engine.sequence import Adapter, FinishReason, SampledToken, Sequence


@dataclass(frozen=True, slots=True)
class Chunk:
    """`count` tokens of a sequence from position `start` on; `samples` if the last of them yields a new token."""

    sequence: Sequence
    start: int
    count: int
    samples: bool

    @property
    def decodes(self) -> bool:
        """Whether this is one token of a running answer, not part of a prompt."""
        return self.count == 1 and self.start >= len(self.sequence.prompt)


@dataclass(frozen=True, slots=True)
class SlotLoad:
    """Copy an adapter's weights to the stacks, `row` on, beside the running batch."""

    adapter: Adapter
    row: int


@dataclass(frozen=True, slots=True)
class Plan:
    """One step: its chunks, and copies of adapters to begin."""

    chunks: tuple[Chunk, ...]
    loads: tuple[SlotLoad, ...] = ()

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


Outcome = Progress | Failed
