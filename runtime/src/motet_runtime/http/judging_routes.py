"""`/v1/classify` and `/v1/panels`: probabilities of labels, by one adapter or by many over one input."""

from contextlib import ExitStack
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from motet_api.errors import ErrorCode
from motet_api.identity import AdapterId
from motet_runtime.classification import LabelRequest, LabelScores, label_tokens, score_labels
from motet_runtime.errors import RequestError
from motet_runtime.http.answers import Json, parse_body
from motet_runtime.http.headers import served_by
from motet_runtime.http.watching import unless_client_leaves
from motet_runtime.service import Service

Labels = Annotated[list[str], Field(max_length=256)]


class ClassifyRequest(BaseModel):
    """Body of `/v1/classify`. Without `labels` the adapter must have a classification head."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str
    input: str | Annotated[list[str], Field(min_length=1, max_length=256)]
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
        adapter = self._service.resolve(body.model)
        inputs = [body.input] if isinstance(body.input, str) else body.input
        wanted = [self._request(text, "", adapter, body.labels) for text in inputs]
        scores = await self._judged(request, wanted)
        data = [{"index": index} | _judgement(body.labels, one) for index, one in enumerate(scores)]
        answer = {"object": "list", "model": body.model, "data": data, "usage": _usage(wanted, scores)}
        return Json(answer, headers=served_by(self._service.settings, adapter))

    async def panels(self, request: Request) -> Response:
        """Label probabilities of one input by many adapters; what they share of it is computed once."""
        body = await parse_body(request, PanelRequest)
        adapters = [self._service.resolve(member.model) for member in body.members]
        wanted = [
            self._request(body.input, member.prompt, adapter, member.labels)
            for member, adapter in zip(body.members, adapters, strict=True)
        ]
        scores = await self._judged(request, wanted)
        data = [
            {"index": index, "model": member.model, "adapter": adapter} | _judgement(member.labels, one)
            for index, (member, adapter, one) in enumerate(zip(body.members, adapters, scores, strict=True))
        ]
        answer = {"object": "panel", "data": data, "usage": _usage(wanted, scores)}
        return Json(answer, headers=served_by(self._service.settings, None))

    def _request(self, text: str, suffix: str, adapter: AdapterId | None, labels: list[str]) -> LabelRequest:
        base = self._service.base
        # Apart, so that the shared input has the same tokens whatever follows it.
        ids = base.generator.encode(text) + (base.generator.encode(suffix, False) if suffix else [])
        tokens = tuple(label_tokens(base.generator, text + suffix, ids, label) for label in labels)
        longest = len(ids) + max(map(len, tokens), default=1)
        if not ids or longest > base.max_model_len:
            message = (
                f"input and label must have 1 to {base.max_model_len} tokens; given are {longest}: shorten the input"
            )
            raise RequestError(ErrorCode.INVALID_REQUEST, message, "input")
        return LabelRequest(tuple(ids), adapter, tokens)

    async def _judged(self, request: Request, wanted: list[LabelRequest]) -> list[LabelScores]:
        service = self._service
        with service.lifecycle.request(), ExitStack() as held:
            for adapter in {one.adapter for one in wanted}:
                held.enter_context(service.residency.use(adapter))
            scores = await unless_client_leaves(request, score_labels(service.base.generator, wanted))
        for one in wanted:
            service.metrics.prompt_tokens.labels(one.adapter or "").inc(len(one.prompt))
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
