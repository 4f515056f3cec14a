"""The LoRAX routes, so that `lorax-client` works unmodified."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from motet_api.identity import AdapterId
from motet_runtime.errors import RequestError
from motet_runtime.generation import Generation, GenerationRequest, TokenEvent
from motet_runtime.http.answers import Json, error_body, parse_body, to_json
from motet_runtime.http.headers import served_by
from motet_runtime.http.lorax_bodies import LoraxRequest, TokenizeRequest, check, is_sampling, to_generation
from motet_runtime.http.streaming import event_stream
from motet_runtime.http.watching import unless_client_leaves
from motet_runtime.service import Service


class LoraxRoutes:
    """`/`, `/generate`, `/generate_stream`, `/invocations`, `/info`, `/health`, `/ping`, `/tokenize`."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        """For the serving port."""
        return [
            Route("/", self.health, methods=["GET"]),
            Route("/", self.compat_generate, methods=["POST"]),
            Route("/invocations", self.compat_generate, methods=["POST"]),
            Route("/generate", self.generate, methods=["POST"]),
            Route("/generate_stream", self.generate_stream, methods=["POST"]),
            Route("/health", self.health, methods=["GET"]),
            Route("/ping", self.health, methods=["GET"]),
            Route("/info", self.info, methods=["GET"]),
            Route("/tokenize", self.tokenize, methods=["POST"]),
        ]

    async def health(self, _: Request) -> Response:
        """Whether the base is loaded: 200 without a body, or 503."""
        return Response(headers={"x-model-device": self._service.base.device})

    async def compat_generate(self, request: Request) -> Response:
        """One answer in a list, or a stream, as the body says."""
        body = await parse_body(request, LoraxRequest)
        if body.stream:
            return await self._stream(request, body)
        answer, headers = await self._generate(request, body)
        return Json([answer], headers=headers)

    async def generate(self, request: Request) -> Response:
        """One answer."""
        answer, headers = await self._generate(request, await parse_body(request, LoraxRequest))
        return Json(answer, headers=headers)

    async def generate_stream(self, request: Request) -> Response:
        """Server-sent events."""
        return await self._stream(request, await parse_body(request, LoraxRequest))

    async def info(self, _: Request) -> Response:
        """What is served, in LoRAX's fields; only those that are true of this engine."""
        base, settings = self._service.base, self._service.settings
        return Json(
            {
                "model_id": settings.model_name,
                "model_sha": None,
                "model_dtype": base.dtype,
                "model_device_type": base.device,
                "model_pipeline_tag": "text-generation",
                "max_concurrent_requests": settings.engine.max_batch_size,
                "max_best_of": 2,
                "max_stop_sequences": 4,
                "max_input_length": base.max_model_len - 1,
                "max_total_tokens": base.max_model_len,
                "eager_prefill": False,
                "version": "motet",
            }
        )

    async def tokenize(self, request: Request) -> Response:
        """Tokens with their place in the text, in characters."""
        body = await parse_body(request, TokenizeRequest)
        tokenizer = self._service.base.generator.tokenizer
        encoded = tokenizer(body.inputs, add_special_tokens=body.add_special_tokens, return_offsets_mapping=True)
        rows = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        return Json(
            [{"id": token, "text": body.inputs[begin:end], "start": begin, "end": end} for token, (begin, end) in rows]
        )

    async def _prepare(self, body: LoraxRequest, stream: bool) -> tuple[GenerationRequest, AdapterId | None]:
        base = self._service.base
        check(body, stream)
        adapter = await self._service.resolve(body.parameters.adapter_id)
        ids = await base.generator.read(body.inputs)
        return to_generation(body, ids, adapter, base.max_model_len, stream), adapter

    async def _generate(self, request: Request, body: LoraxRequest) -> tuple[dict[str, Any], dict[str, str]]:
        generator = self._service.base.generator
        started = time.monotonic()
        with self._service.lifecycle.request():
            wanted, adapter = await self._prepare(body, stream=False)
            validated = time.monotonic()
            candidates = [
                replace(wanted, params=replace(wanted.params, seed=wanted.params.seed ^ n))
                for n in range(best_of(body))
            ]
            with self._service.residency.use(adapter):
                answers = await unless_client_leaves(request, generator.generate(candidates))
        ranked = sorted(zip(candidates, answers, strict=True), key=lambda pair: -_mean_logprob(pair[1]))
        self._count(adapter, wanted, sum(len(answer.tokens) for answer in answers))
        answer = self._answer(body, ranked)
        headers = served_by(self._service.settings, adapter) | self._measured(
            len(body.inputs), len(wanted.prompt), len(ranked[0][1].tokens), started, validated
        )
        return answer, headers

    def _measured(
        self, characters: int, prompt: int, generated: int, started: float, validated: float
    ) -> dict[str, str]:
        """LoRAX's headers of counts and milliseconds; inference is from submission to the last token."""
        now = time.monotonic()
        figures = {
            "x-compute-characters": characters,
            "x-prompt-tokens": prompt,
            "x-generated-tokens": generated,
            "x-skipped-tokens": 0,
            "x-total-tokens": prompt + generated,
            "x-compute-time": 1000 * (now - started),
            "x-total-time": 1000 * (now - started),
            "x-validation-time": 1000 * (validated - started),
            "x-inference-time": 1000 * (now - validated),
            "x-time-per-token": 1000 * (now - validated) / max(1, generated),
        }
        return {name: str(round(value)) for name, value in figures.items()} | {
            "x-compute-type": self._service.base.device
        }

    async def _stream(self, request: Request, body: LoraxRequest) -> Response:
        wanted, adapter = await self._prepare(body, stream=True)

        async def events(tokens: AsyncGenerator[TokenEvent]) -> AsyncGenerator[str]:
            count, text = 0, ""
            try:
                async with aclosing(tokens):
                    async for event in tokens:
                        count, text = count + 1, text + event.piece
                        yield f"data:{to_json(self._event(body, wanted, event, text, count))}\n\n"
                        if await request.is_disconnected():
                            return
            except RequestError as error:
                yield f"data:{to_json(error_body('/', error)[1])}\n\n"
            finally:
                self._count(adapter, wanted, count)

        return await event_stream(self._service, wanted, events)

    def _event(
        self, body: LoraxRequest, wanted: GenerationRequest, event: TokenEvent, text: str, count: int
    ) -> dict[str, Any]:
        final = event.finish is not None
        details = {
            "finish_reason": event.finish,
            "prompt_tokens": len(wanted.prompt),
            "generated_tokens": count,
            "skipped_tokens": 0,
            "seed": wanted.params.seed if wanted.params.sample else None,
        }
        full = (body.inputs if body.parameters.return_full_text else "") + text + event.stop_text
        return {
            "token": _token(event),
            "generated_text": full if final else None,
            "details": details if final and body.parameters.details else None,
        }

    def _answer(self, body: LoraxRequest, ranked: list[tuple[GenerationRequest, Generation]]) -> dict[str, Any]:
        p = body.parameters
        prefix = body.inputs if p.return_full_text else ""
        best = ranked[0][1]
        answer: dict[str, Any] = {"generated_text": prefix + best.text + best.stop_text}
        if p.details or p.decoder_input_details:
            answer["details"] = {"prompt_tokens": len(ranked[0][0].prompt), "skipped_tokens": 0} | self._details(
                *ranked[0]
            )
            if len(ranked) > 1:
                answer["details"]["best_of_sequences"] = [
                    {"generated_text": prefix + other.text + other.stop_text} | self._details(wanted, other)
                    for wanted, other in ranked[1:]
                ]
        return answer

    def _details(self, wanted: GenerationRequest, generation: Generation) -> dict[str, Any]:
        decode = self._service.base.generator.tokenizer.decode
        logprobs = [None, *generation.prompt_logprobs]
        prefill = [
            {"id": token, "text": decode([token]), "logprob": logprob}
            for token, logprob in zip(wanted.prompt, logprobs, strict=False)
        ]
        return {
            "finish_reason": generation.finish,
            "generated_tokens": len(generation.tokens),
            "seed": wanted.params.seed if wanted.params.sample else None,
            "prefill": prefill if wanted.params.prompt_logprobs_from else [],
            "tokens": [self._token_with_alternatives(event) for event in generation.tokens],
        }

    def _token_with_alternatives(self, event: TokenEvent) -> dict[str, Any]:
        token = _token(event)
        if event.token.alternatives:
            decode = self._service.base.generator.tokenizer.decode
            token["alternative_tokens"] = [
                {"id": other, "text": decode([other]), "logprob": logprob}
                for other, logprob in event.token.alternatives
            ]
        return token

    def _count(self, adapter: AdapterId | None, wanted: GenerationRequest, generated: int) -> None:
        metrics = self._service.metrics
        metrics.prompt_tokens.labels(adapter or "").inc(len(wanted.prompt))
        metrics.generated_tokens.labels(adapter or "").inc(generated)


def best_of(body: LoraxRequest) -> int:
    """How many answers to choose from."""
    return body.parameters.best_of if body.parameters.best_of and is_sampling(body.parameters) else 1


def _mean_logprob(generation: Generation) -> float:
    return sum(event.token.logprob for event in generation.tokens) / max(1, len(generation.tokens))


def _token(event: TokenEvent) -> dict[str, Any]:
    return {
        "id": event.token.id,
        "text": event.text,
        "logprob": event.token.logprob,
        "special": event.special,
        "skipped": False,
    }
