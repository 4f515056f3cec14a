"""Requests, from the asyncio side: an answer's text as it grows, its end, its cancellation when nobody listens."""

import asyncio
import itertools
import math
from collections.abc import AsyncGenerator, Iterable, Mapping
from collections.abc import Sequence as Seq
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from motet_api.errors import ErrorCode
from motet_api.identity import AdapterId
from motet_runtime.engine.grammar import GrammarCompiler, GrammarSpec
from motet_runtime.engine.plan import Failed, Outcome, Progress
from motet_runtime.engine.sequence import Adapter, FinishReason, SampledToken, SamplingParams, Sequence
from motet_runtime.engine.text import TextStream
from motet_runtime.engine.thread import EngineThread
from motet_runtime.errors import RequestError

_LONG_TEXT: Final = 4096
"""Characters from which on handing a text to a thread costs less than reading it."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A validated request: prompt as token ids, how to sample, where to stop, which adapter, which grammar.

    `field` is what the caller calls the prompt, for messages.
    """

    prompt: tuple[int, ...]
    params: SamplingParams
    stop: tuple[str, ...] = ()
    adapter: AdapterId | None = None
    grammar: GrammarSpec | None = None
    field: str = "inputs"


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One generated token; `finish` is set on the last.

    `text` is what the token adds to the answer: nothing while a character is incomplete, the token's own name if it is
    special. `piece` is what may be shown: it lags behind where a stop string may have begun. `stop_text` is the stop
    string that ended the answer, which `piece` leaves out.
    """

    token: SampledToken
    text: str
    special: bool
    piece: str
    finish: FinishReason | None
    stop_text: str = ""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that suits its adapter and has its grammar compiled: the engine will take it."""

    request: GenerationRequest
    sequence: Sequence


@dataclass(frozen=True, slots=True)
class Generation:
    """A finished answer. `text` ends before a stop string; `stop_text` is that string, if one ended it.

    `prompt_logprobs` are of the prompt's tokens but the first; None where the model's scores are not finite.
    """

    text: str
    stop_text: str
    tokens: tuple[TokenEvent, ...]
    finish: FinishReason
    prompt_logprobs: tuple[float | None, ...]


class Generator:
    """Submits requests to the engine and follows them. `adapters` is what can be served at the moment."""

    def __init__(
        self, engine: EngineThread, tokenizer: Any, adapters: Mapping[AdapterId, Adapter], vocabulary: int
    ) -> None:
        self.tokenizer = tokenizer
        self.vocabulary = vocabulary
        self._engine = engine
        self._adapters = adapters
        self._ids = itertools.count(1)
        self._special = frozenset(tokenizer.all_special_ids)
        self._grammars = GrammarCompiler(tokenizer, vocabulary, sorted(engine.scheduler.eos_ids))

    async def prepare(self, request: GenerationRequest) -> Prepared:
        """Check and compile everything that can be refused before the first token.

        Raises:
            RequestError: the request does not suit its adapter, or its grammar cannot be followed.
        """
        sequence = self.sequence(request.prompt, request.params, request.adapter, request.field)
        if sequence.adapter and sequence.adapter.head_labels:
            message = f"{request.adapter} has a classification head and generates no text: ask /v1/classify"
            raise RequestError(ErrorCode.INVALID_REQUEST, message, "model")
        if request.grammar is not None:
            sequence.constraint = await asyncio.to_thread(self._grammars.compile, request.grammar)
        return Prepared(request, sequence)

    async def stream(self, prepared: Prepared) -> AsyncGenerator[TokenEvent]:
        """Tokens as they come. Closing the iterator early cancels the request.

        Raises:
            RequestError: the engine failed on it.
        """
        request = prepared.request
        text = TextStream(self.tokenizer, request.stop, request.prompt)
        async with aclosing(self._follow(prepared.sequence, text, request.stop)) as events:
            async for event in events:
                yield event

    async def generate(self, requests: Seq[GenerationRequest]) -> list[Generation]:
        """Whole answers, of all requests together; where one fails, the others end with it.

        Raises:
            RequestError: a request does not suit its adapter or its grammar, or the engine failed on it.
        """
        tasks = [asyncio.ensure_future(self._generate(request)) for request in requests]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            # Nothing may run on in the engine when this is over: its adapter is no longer held.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _generate(self, request: GenerationRequest) -> Generation:
        prepared = await self.prepare(request)
        stream = TextStream(self.tokenizer, request.stop, request.prompt)
        async with aclosing(self._follow(prepared.sequence, stream, request.stop)) as follow:
            events = [event async for event in follow]
        return Generation(
            text=stream.text if stream.stopped_at is None else stream.text[: stream.stopped_at],
            stop_text=events[-1].stop_text,
            tokens=tuple(events),
            finish=events[-1].finish or FinishReason.LENGTH,
            prompt_logprobs=tuple(
                value if math.isfinite(value) else None for value in prepared.sequence.prompt_logprobs
            ),
        )

    def sequence(
        self, prompt: tuple[int, ...], params: SamplingParams, adapter: AdapterId | None, field: str
    ) -> Sequence:
        """A new sequence for the engine; `field` is what the caller calls the prompt.

        Raises:
            RequestError: the model does not know a token, the adapter is gone, or is an activated LoRA that the prompt
                does not invoke.
        """
        highest = max(prompt)
        if highest >= self.vocabulary:
            message = (
                f"{field}: {self._name(highest)!r} is token {highest} of the tokenizer, and the model knows those "
                f"below {self.vocabulary}: leave it out"
            )
            raise RequestError(ErrorCode.INVALID_REQUEST, message, field)
        if adapter is None:
            return Sequence(next(self._ids), prompt, params)
        known = self._adapters.get(adapter)
        if known is None:
            raise RequestError(ErrorCode.ADAPTER_NOT_FOUND, f"adapter {adapter} is not loaded: retry")
        acts_from = known.acts_from(prompt)
        if acts_from is None:
            invocation = self.tokenizer.decode(list(known.invocation))
            message = (
                f"{field}: {adapter} is an activated LoRA, and the prompt does not contain its invocation "
                f"{invocation!r} (tokens {list(known.invocation)}): add it before the instruction"
            )
            raise RequestError(ErrorCode.INVALID_REQUEST, message, field)
        return Sequence(next(self._ids), prompt, params, known, acts_from=acts_from)

    async def finish(self, sequences: Seq[Sequence]) -> list[SampledToken]:
        """Run sequences of one new token each, together; their tokens in the same order.

        Raises:
            RequestError: the engine failed on one of them.
        """
        outcomes, submitted = self._submit(sequences)
        done: dict[int, SampledToken] = {}
        try:
            while len(done) < len(sequences):
                outcome = await outcomes.get()
                if isinstance(outcome, Failed):
                    raise RequestError(ErrorCode.GENERATION_FAILED, outcome.error)
                if outcome.finish:
                    done[outcome.sequence.id] = outcome.token
        finally:
            for sequence in submitted:
                if sequence.id not in done:
                    self._engine.cancel(sequence)
        return [done[sequence.id] for sequence in sequences]

    def _submit(self, sequences: Iterable[Sequence]) -> tuple[asyncio.Queue[Outcome], list[Sequence]]:
        loop = asyncio.get_running_loop()
        outcomes: asyncio.Queue[Outcome] = asyncio.Queue()

        def hand_over(outcome: Outcome) -> None:
            loop.call_soon_threadsafe(outcomes.put_nowait, outcome)

        listed = list(sequences)
        self._engine.submit(listed, hand_over)
        return outcomes, listed

    async def _follow(self, sequence: Sequence, stream: TextStream, stops: Seq[str]) -> AsyncGenerator[TokenEvent]:
        outcomes, _ = self._submit([sequence])
        shown = 0
        try:
            while True:
                outcome = await outcomes.get()
                if isinstance(outcome, Failed):
                    raise RequestError(ErrorCode.GENERATION_FAILED, outcome.error)
                event = self._event(outcome, stream, stops, shown)
                yield event
                shown += len(event.piece)
                if event.finish:
                    return
        finally:
            self._engine.cancel(sequence)

    def _event(self, outcome: Progress, stream: TextStream, stops: Seq[str], shown: int) -> TokenEvent:
        token, finish = outcome.token, outcome.finish
        text = stream.push(token.id)
        if finish:
            text += stream.finish()
        stop = ""
        if stream.stopped_at is not None:
            finish = FinishReason.STOP
            stop = next(one for one in stops if stream.text.startswith(one, stream.stopped_at))
        end = stream.emittable if finish is None or stream.stopped_at is not None else len(stream.text)
        special = token.id in self._special
        name = self._name(token.id) if special else text
        return TokenEvent(token, name, special, stream.text[shown : max(shown, end)], finish, stop)

    def _name(self, token: int) -> str:
        return str(self.tokenizer.decode([token], clean_up_tokenization_spaces=False))

    async def read(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text; a long one is read in a thread, so that nobody waits for it."""
        if len(text) < _LONG_TEXT:
            return self.encode(text, add_special_tokens)
        return await asyncio.to_thread(self.encode, text, add_special_tokens)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text."""
        ids: Seq[int] = self.tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"]
        return list(ids)
