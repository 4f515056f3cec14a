"""One request, from the asyncio side: its text as it grows, its end, its cancellation when nobody listens any more."""

import asyncio
import itertools
from collections.abc import AsyncGenerator
from collections.abc import Sequence as Seq
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from motet_api.errors import ErrorCode
from motet_api.identity import AdapterId
from motet_runtime.engine.scheduler import Failed
from motet_runtime.engine.sequence import FinishReason, SampledToken, SamplingParams, Sequence
from motet_runtime.engine.text import TextStream
from motet_runtime.engine.thread import EngineThread, Outcome
from motet_runtime.errors import RequestError


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A validated request: prompt as token ids, how to sample, where to stop, which adapter."""

    prompt: tuple[int, ...]
    params: SamplingParams
    stop: tuple[str, ...] = ()
    adapter: AdapterId | None = None


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One generated token; `finish` is set on the last.

    `text` is what the token adds to the answer: nothing while a character is incomplete, the token's own name if it is
    special. `piece` is what may be shown: it lags behind where a stop string may have begun.
    """

    token: SampledToken
    text: str
    special: bool
    piece: str
    finish: FinishReason | None


@dataclass(frozen=True, slots=True)
class Generation:
    """A finished answer. `text` ends before a stop string; `stop_text` is that string, if one ended it."""

    text: str
    stop_text: str
    tokens: tuple[TokenEvent, ...]
    finish: FinishReason
    prompt_logprobs: tuple[float, ...]


class Generator:
    """Submits requests to the engine and follows them."""

    def __init__(self, engine: EngineThread, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._engine = engine
        self._ids = itertools.count(1)
        self._special = frozenset(tokenizer.all_special_ids)

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[TokenEvent]:
        """Tokens as they come. Closing the iterator early cancels the request.

        Raises:
            RequestError: the engine failed on it.
        """
        sequence = Sequence(next(self._ids), request.prompt, request.params, request.adapter)
        text = TextStream(self.tokenizer, request.stop, request.prompt)
        async with aclosing(self._follow(sequence, text)) as events:
            async for event in events:
                yield event

    async def generate(self, request: GenerationRequest) -> Generation:
        """The whole answer.

        Raises:
            RequestError: the engine failed on it.
        """
        sequence = Sequence(next(self._ids), request.prompt, request.params, request.adapter)
        stream = TextStream(self.tokenizer, request.stop, request.prompt)
        async with aclosing(self._follow(sequence, stream)) as follow:
            events = [event async for event in follow]
        end = stream.stopped_at
        return Generation(
            text=stream.text if end is None else stream.text[:end],
            stop_text="" if end is None else next(stop for stop in request.stop if stream.text.startswith(stop, end)),
            tokens=tuple(events),
            finish=events[-1].finish or FinishReason.LENGTH,
            prompt_logprobs=tuple(sequence.prompt_logprobs),
        )

    async def _follow(self, sequence: Sequence, stream: TextStream) -> AsyncGenerator[TokenEvent]:
        loop = asyncio.get_running_loop()
        outcomes: asyncio.Queue[Outcome] = asyncio.Queue()

        def hand_over(outcome: Outcome) -> None:
            loop.call_soon_threadsafe(outcomes.put_nowait, outcome)

        self._engine.submit(sequence, hand_over)
        shown = 0
        try:
            while True:
                outcome = await outcomes.get()
                if isinstance(outcome, Failed):
                    raise RequestError(ErrorCode.GENERATION_FAILED, outcome.error)
                token, finish = outcome.token, outcome.finish
                text = stream.push(token.id)
                if finish:
                    text += stream.finish()
                if stream.stopped_at is not None:
                    finish = FinishReason.STOP
                end = stream.emittable if finish is None or stream.stopped_at is not None else len(stream.text)
                special = token.id in self._special
                yield TokenEvent(
                    token, self._name(token.id) if special else text, special, stream.text[shown:end], finish
                )
                shown = max(shown, end)
                if finish:
                    return
        finally:
            self._engine.cancel(sequence)

    def _name(self, token: int) -> str:
        return str(self.tokenizer.decode([token], clean_up_tokenization_spaces=False))

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text."""
        ids: Seq[int] = self.tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"]
        return list(ids)
