"""One request on its way through the engine."""

from dataclasses import dataclass, field
from enum import StrEnum

from motet_api.identity import AdapterId


class FinishReason(StrEnum):
    """Why a sequence ended, in LoRAX's words."""

    LENGTH = "length"
    EOS = "eos_token"
    STOP = "stop_sequence"


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen. Greedy unless `sample`."""

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
    alternatives: int = 0
    prompt_logprobs: bool = False


@dataclass(frozen=True, slots=True)
class SampledToken:
    """One chosen token with its log-probability, and the most likely ones beside it."""

    id: int
    logprob: float
    alternatives: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class RowFailure:
    """Why one row of a step could not be computed; the other rows are not touched by it."""

    message: str


@dataclass(slots=True, eq=False)
class Sequence:
    """Tokens of one request: the prompt, then what was generated; `computed` of them are in the KV cache."""

    id: int
    prompt: tuple[int, ...]
    params: SamplingParams
    adapter: AdapterId | None = None
    output: list[int] = field(default_factory=list)
    computed: int = 0
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
