"""The OpenAI routes: completions, chat completions, models."""

import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from itertools import accumulate
from typing import Any

from jinja2 import TemplateError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from motet_api.errors import ErrorCode
from motet_api.identity import AdapterId
from motet_runtime.engine.sequence import FinishReason
from motet_runtime.errors import RequestError
from motet_runtime.generation import Generation, GenerationRequest, TokenEvent
from motet_runtime.http.answers import Json, error_body, parse_body, to_json
from motet_runtime.http.headers import served_by
from motet_runtime.http.openai_bodies import ChatRequest, CompletionRequest, check_supported, to_generation
from motet_runtime.http.streaming import event_stream
from motet_runtime.http.watching import unless_client_leaves
from motet_runtime.service import Service


class OpenAIRoutes:
    """`/v1/completions`, `/v1/chat/completions`, `/v1/models`."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        """For the serving port."""
        return [
            Route("/v1/completions", self.completions, methods=["POST"]),
            Route("/v1/chat/completions", self.chat_completions, methods=["POST"]),
            Route("/v1/models", self.models, methods=["GET"]),
        ]

    async def models(self, _: Request) -> Response:
        """The base and the resident adapters."""
        base = self._service.settings.model_name
        rows = [(base, None), *((adapter, base) for adapter in self._service.residency.resident())]
        data = [
            {"id": name, "object": "model", "created": 0, "owned_by": "motet", "parent": parent}
            for name, parent in rows
        ]
        return Json({"object": "list", "data": data})

    async def completions(self, request: Request) -> Response:
        """Completions of one or several prompts."""
        body = await parse_body(request, CompletionRequest)
        check_supported(body)
        generator = self._service.base.generator
        return await self._answer(request, body, [await generator.read(prompt) for prompt in body.prompt], body.prompt)

    async def chat_completions(self, request: Request) -> Response:
        """A completion of a conversation, through the model's own chat template."""
        body = await parse_body(request, ChatRequest)
        check_supported(body)
        tokenizer = self._service.base.generator.tokenizer
        if not tokenizer.chat_template:
            message = "this model has no chat template: use /v1/completions"
            raise RequestError(ErrorCode.INVALID_REQUEST, message, "messages")
        messages = [{"role": message.role, "content": message.text()} for message in body.messages]
        try:
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except TemplateError as error:
            message = f"messages: the model's chat template refuses them: {error}"
            raise RequestError(ErrorCode.INVALID_REQUEST, message, "messages") from error
        return await self._answer(request, body, [await self._service.base.generator.read(text, False)], [""])

    async def _answer(
        self, request: Request, body: CompletionRequest | ChatRequest, prompts: list[list[int]], texts: list[str]
    ) -> Response:
        adapter = await self._service.resolve(body.model)
        limit = self._service.base.max_model_len
        wanted = [to_generation(body, ids, adapter, limit, choice) for ids in prompts for choice in range(body.n)]
        head = _head(body)
        if body.stream:
            return await self._stream(request, body, wanted[0], head, texts[0])
        with self._service.lifecycle.request(), self._service.residency.use(adapter):
            answers = await unless_client_leaves(request, self._service.base.generator.generate(wanted))
        generated = sum(len(answer.tokens) for answer in answers)
        self._count(adapter, sum(map(len, prompts)), generated)
        choices = [
            self._choice(body, index, wanted[index], answer, texts[index // body.n])
            for index, answer in enumerate(answers)
        ]
        usage = _usage(sum(map(len, prompts)), generated)
        return Json(head | {"choices": choices, "usage": usage}, headers=served_by(self._service.settings, adapter))

    async def _stream(
        self,
        request: Request,
        body: CompletionRequest | ChatRequest,
        wanted: GenerationRequest,
        head: dict[str, Any],
        prompt: str,
    ) -> Response:
        chat = isinstance(body, ChatRequest)
        head = head | {"object": "chat.completion.chunk"} if chat else head

        async def events(tokens: AsyncGenerator[TokenEvent]) -> AsyncGenerator[str]:
            count, offset = 0, len(prompt) if isinstance(body, CompletionRequest) and body.echo else 0
            try:
                if chat:
                    yield _sse(head | {"choices": [_delta(True, "", None, role=True)]})
                elif isinstance(body, CompletionRequest) and body.echo:
                    yield _sse(head | {"choices": [_delta(False, prompt, None)]})
                async with aclosing(tokens):
                    async for event in tokens:
                        count += 1
                        choice = _delta(chat, event.piece, _finish(event.finish))
                        choice["logprobs"] = self._logprobs_of(body, [event], offset)
                        offset += len(event.text)
                        yield _sse(head | {"choices": [choice]})
                        if await request.is_disconnected():
                            return
                if (body.stream_options or {}).get("include_usage"):
                    yield _sse(head | {"choices": [], "usage": _usage(len(wanted.prompt), count)})
                yield "data: [DONE]\n\n"
            except RequestError as error:
                yield _sse(error_body("/v1/", error)[1])
            finally:
                self._count(wanted.adapter, len(wanted.prompt), count)

        return await event_stream(self._service, wanted, events)

    def _choice(
        self,
        body: CompletionRequest | ChatRequest,
        index: int,
        wanted: GenerationRequest,
        answer: Generation,
        prompt: str,
    ) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": index, "finish_reason": _finish(answer.finish)}
        choice["logprobs"] = self._logprobs_of(body, answer.tokens)
        if isinstance(body, ChatRequest):
            choice["message"] = {"role": "assistant", "content": answer.text}
            return choice
        choice["text"] = (prompt if body.echo else "") + answer.text
        if body.logprobs is not None and body.echo:
            decode = self._service.base.generator.tokenizer.decode
            texts = [decode([token]) for token in wanted.prompt]
            values = [None, *answer.prompt_logprobs]
            choice["logprobs"] = _logprobs(
                [*texts, *choice["logprobs"]["tokens"]],
                [*values, *choice["logprobs"]["token_logprobs"]],
                [*({} for _ in texts), *choice["logprobs"]["top_logprobs"]],
            )
        return choice

    def _logprobs_of(
        self, body: CompletionRequest | ChatRequest, events: Sequence[TokenEvent], offset: int = 0
    ) -> dict[str, Any] | None:
        """Log-probabilities of generated tokens, the first of them at `offset` in the text; None if not asked for."""
        if isinstance(body, ChatRequest):
            return {"content": [self._chat_logprob(event) for event in events]} if body.logprobs else None
        if body.logprobs is None:
            return None
        decode = self._service.base.generator.tokenizer.decode
        tops = [{decode([token]): value for token, value in event.token.alternatives} for event in events]
        return _logprobs([event.text for event in events], [event.token.logprob for event in events], tops, offset)

    def _chat_logprob(self, event: TokenEvent) -> dict[str, Any]:
        decode = self._service.base.generator.tokenizer.decode
        tops = [{"token": decode([token]), "logprob": value} for token, value in event.token.alternatives]
        return {"token": event.text, "logprob": event.token.logprob, "top_logprobs": tops}

    def _count(self, adapter: AdapterId | None, prompt: int, generated: int) -> None:
        metrics = self._service.metrics
        metrics.prompt_tokens.labels(adapter or "").inc(prompt)
        metrics.generated_tokens.labels(adapter or "").inc(generated)


def _head(body: CompletionRequest | ChatRequest) -> dict[str, Any]:
    chat = isinstance(body, ChatRequest)
    return {
        "id": f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}",
        "object": "chat.completion" if chat else "text_completion",
        "created": int(time.time()),
        "model": body.model,
    }


def _delta(chat: bool, text: str, finish: str | None, role: bool = False) -> dict[str, Any]:
    if not chat:
        return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
    delta = ({"role": "assistant"} if role else {}) | {"content": text}
    return {"index": 0, "delta": delta, "finish_reason": finish}


def _logprobs(
    texts: list[str], values: Sequence[float | None], tops: Sequence[dict[str, float]], offset: int = 0
) -> dict[str, Any]:
    offsets = list(accumulate(map(len, texts[:-1]), initial=offset))
    return {"tokens": texts, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets}


def _finish(reason: FinishReason | None) -> str | None:
    return None if reason is None else "length" if reason is FinishReason.LENGTH else "stop"


def _usage(prompt: int, generated: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": generated, "total_tokens": prompt + generated}


def _sse(document: dict[str, Any]) -> str:
    return f"data: {to_json(document)}\n\n"
