"""`/v1/classify` and `/v1/panels`: probabilities of labels, by one adapter or by many over one input."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from motet_api.errors import ErrorCode
from motet_api.identity import AdapterId
from motet_runtime.classification import LabelRequest, LabelScores, PromptReader, score_labels
from motet_runtime.errors import RequestError
from motet_runtime.http.answers import Json, Strings, parse_body
from motet_runtime.http.headers import served_by
from motet_runtime.http.watching import unless_client_leaves
from motet_runtime.service import Service

Labels = Annotated[list[str], Field(max_length=256)]


class ClassifyRequest(BaseModel):
    """Body of `/v1/classify`. Without `labels` the adapter must have a classification head."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str
    input: Annotated[Strings, Field(min_length=1, max_length=256)]
    labels: Labels = []


class PanelMember(BaseModel):
    """One indicator: `prompt` is what comes behind the shared input for it, its invocation first if it is an aLoRA."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    prompt: str = ""
    labels: Labels = []


class PanelRequest(BaseModel):
    """Body of `/v1/panels`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: Annotated[str, Field(min_length=1)]
    members: Annotated[list[PanelMember], Field(min_length=1, max_length=1024)]


class JudgingRoutes:
    """Both routes, for the serving port."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        """For the serving port."""
        return [
            Route("/v1/classify", self.classify, methods=["POST"]),
            Route("/v1/panels", self.panels, methods=["POST"]),
        ]

    async def classify(self, request: Request) -> Response:
        """Label probabilities of one or several inputs, by one adapter."""
        body = await parse_body(request, ClassifyRequest)
        adapter = await self._service.resolve(body.model)
        reader = PromptReader(self._service.base.generator)
        wanted = []
        with self._holding({adapter}):
            for text in body.input:
                # In a thread: an hour's call takes a while to read, and others are to get their turn.
                fields = ("input", "labels")
                wanted.append(await asyncio.to_thread(self._read, reader, text, "", adapter, body.labels, fields))
            scores = await self._judged(request, wanted)
        data = [{"index": index} | _judgement(body.labels, one) for index, one in enumerate(scores)]
        answer = {"object": "list", "model": body.model, "data": data, "usage": _usage(wanted, scores)}
        return Json(answer, headers=served_by(self._service.settings, adapter))

    async def panels(self, request: Request) -> Response:
        """Label probabilities of one input by many adapters; what they share of it is computed once."""
        body = await parse_body(request, PanelRequest)
        # At once, since each may have to be loaded; and each member's adapter once.
        names = sorted({member.model for member in body.members})
        resolved = dict(zip(names, await asyncio.gather(*map(self._service.resolve, names)), strict=True))
        adapters = [resolved[member.model] for member in body.members]
        reader = PromptReader(self._service.base.generator)
        with self._holding(adapters):
            wanted = []
            for index, (member, adapter) in enumerate(zip(body.members, adapters, strict=True)):
                fields = (f"members.{index}.prompt", f"members.{index}.labels")
                asked = (reader, body.input, member.prompt, adapter, member.labels, fields)
                wanted.append(await asyncio.to_thread(self._read, *asked))
            scores = await self._judged(request, wanted)
        data = [
            {"index": index, "model": member.model, "adapter": adapter} | _judgement(member.labels, one)
            for index, (member, adapter, one) in enumerate(zip(body.members, adapters, scores, strict=True))
        ]
        answer = {"object": "panel", "data": data, "usage": _usage(wanted, scores)}
        return Json(answer, headers=served_by(self._service.settings, None))

    @contextmanager
    def _holding(self, adapters: Iterable[AdapterId | None]) -> Iterator[None]:
        """Count as in flight, and keep the adapters resident."""
        with self._service.lifecycle.request(), ExitStack() as held:
            for adapter in set(adapters):
                held.enter_context(self._service.residency.use(adapter))
            yield

    def _read(
        self,
        reader: PromptReader,
        text: str,
        suffix: str,
        adapter: AdapterId | None,
        labels: list[str],
        fields: tuple[str, str],
    ) -> LabelRequest:
        prompt_field, labels_field = fields
        if len(set(labels)) < len(labels):
            message = f"{labels_field}: a label is listed twice: list each once"
            raise RequestError(ErrorCode.INVALID_REQUEST, message, labels_field)
        tokens = tuple(reader.label(text, suffix, label, labels_field) for label in labels)
        wanted = LabelRequest(reader.prompt(text, suffix), adapter, tokens, prompt_field, labels_field)
        limit = self._service.base.max_model_len
        if not wanted.prompt or wanted.longest > limit:
            message = f"{prompt_field}: prompt and label must have 1 to {limit} tokens; given are {wanted.longest}"
            raise RequestError(ErrorCode.INVALID_REQUEST, f"{message}: shorten them", prompt_field)
        return wanted

    async def _judged(self, request: Request, wanted: list[LabelRequest]) -> list[LabelScores]:
        scores = await unless_client_leaves(request, score_labels(self._service.base.generator, wanted))
        for one in wanted:
            self._service.metrics.prompt_tokens.labels(one.adapter or "").inc(len(one.prompt))
        return scores


def _judgement(labels: list[str], scores: LabelScores) -> dict[str, Any]:
    names = labels or [f"LABEL_{index}" for index in range(len(scores.probabilities))]
    best = max(range(len(names)), key=scores.probabilities.__getitem__)
    rows = zip(names, scores.probabilities, scores.logprobs, strict=True)
    return {
        "label": names[best],
        "score": scores.probabilities[best],
        "labels": [{"label": name, "score": score, "logprob": logprob} for name, score, logprob in rows],
    }


def _usage(wanted: list[LabelRequest], scores: list[LabelScores]) -> dict[str, int]:
    prompt = sum(len(one.prompt) for one in wanted)
    return {
        "prompt_tokens": prompt,
        "cached_tokens": sum(one.cached_tokens for one in scores),
        "completion_tokens": 0,
        "total_tokens": prompt,
    }
