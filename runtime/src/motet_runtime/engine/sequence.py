"""One request on its way through the engine, and what it asks for. Imports no torch."""

from collections.abc import Sequence as Row
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from motet_api.identity import AdapterId, Digest


class FinishReason(StrEnum):
    """Why a sequence ended, in LoRAX's words."""

    LENGTH = "length"
    EOS = "eos_token"
    STOP = "stop_sequence"


@dataclass(frozen=True, slots=True)
class Adapter:
    """What the engine knows of an adapter version without its weights.

    `rank` is the largest of any module. `invocation`, set for an activated LoRA (aLoRA, arXiv 2504.12397), is the token
    ids from whose last occurrence in the prompt on the adapter acts. `head_labels` is the number of classes of its
    classification head, 0 if it has none.
    """

    id: AdapterId
    digest: Digest
    rank: int
    invocation: tuple[int, ...] = ()
    head_labels: int = 0

    def acts_from(self, prompt: Row[int]) -> int | None:
        """Position of the first token that the adapter changes; None where the invocation does not occur."""
        if not self.invocation:
            return 0
        length = len(self.invocation)
        wanted = list(self.invocation)
        tokens = list(prompt)
        return next((at for at in range(len(tokens) - length, -1, -1) if tokens[at : at + length] == wanted), None)


class Constraint(Protocol):
    """Keeps one answer within a grammar. Used in the engine's thread only."""

    def allowed(self) -> Row[int]:
        """Bit mask over the vocabulary of tokens that may come next: 32-bit words, lowest bit first."""
        ...

    def advance(self, token: int) -> None:
        """Take in the token that was chosen."""
        ...


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen, and what is wanted beside it. Greedy unless `sample`.

    `logprobs`: the chosen tokens' log-probabilities. `alternatives`: so many most likely tokens at each place.
    `prompt_logprobs_from`: log-probabilities of the prompt's tokens from that position (at least 1) on. `scores`: token
    ids whose log-probabilities at the end of the prompt are wanted; a sequence with `scores`, or whose adapter has a
    classification head, ends with its prompt (`max_new_tokens` 1).
    """

    max_new_tokens: int
    sample: bool = False
    seed: int = 0
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    ignore_eos: bool = False
    logprobs: bool = False
    alternatives: int = 0
    prompt_logprobs_from: int | None = None
    scores: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class SampledToken:
    """One chosen token; its log-probability (nan unless asked for), the most likely ones beside it, and scores.

    `scores` are the log-probabilities of `SamplingParams.scores`, or an adapter's head's logits (one per class).
    """

    id: int
    logprob: float = float("nan")
    alternatives: tuple[tuple[int, float], ...] = ()
    scores: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class RowFailure:
    """Why one row of a step could not be computed; the other rows are not touched by it."""

    message: str


@dataclass(slots=True, eq=False)
class Sequence:
    """Tokens of one request: the prompt, then what was generated; `computed` of them are in the KV cache.

    `acts_from` is the position from which its adapter acts. While it runs, the scheduler keeps here `blocks`, the KV
    blocks that it holds in order of position, `cached`, how many tokens of its prompt came from the prefix cache, and
    `row`, where its adapter's weights begin in the stacks.
    """

    id: int
    prompt: tuple[int, ...]
    params: SamplingParams
    adapter: Adapter | None = None
    constraint: Constraint | None = None
    acts_from: int = 0
    output: list[int] = field(default_factory=list)
    computed: int = 0
    cached: int = 0
    row: int = 0
    blocks: list[int] = field(default_factory=list)
    prompt_logprobs: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.prompt) + len(self.output)

    @property
    def pending(self) -> int:
        """Tokens that are known and not yet in the KV cache."""
        return len(self) - self.computed

    def tokens(self, start: int, count: int) -> list[int]:
        """`count` token ids from position `start` on."""
        end = start + count
        split = len(self.prompt)
        return [*self.prompt[start:end], *self.output[max(0, start - split) : max(0, end - split)]]
