"""Bodies of the OpenAI routes and their meaning as generation requests.

Fields that are not acted on are refused if they would change the answer, and ignored if they would not.
"""

import secrets
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from motet_api.errors import ErrorCode
from motet_api.identity import AdapterId
from motet_runtime.engine.sequence import SamplingParams
from motet_runtime.errors import RequestError
from motet_runtime.generation import GenerationRequest
from motet_runtime.http.answers import Strings
from motet_runtime.http.formats import grammar_of
from motet_runtime.http.lorax_bodies import MAX_ALTERNATIVES, MAX_SEED, MAX_STOP_SEQUENCES, MAX_TOP_K, fit

DEFAULT_MAX_TOKENS: Final = 16
MAX_PROMPTS: Final = 64


class _Common(BaseModel):
    """What completions and chat completions have in common."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    model: str
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int | None, Field(ge=1, le=MAX_TOP_K)] = None
    n: Annotated[int, Field(ge=1, le=16)] = 1
    stream: bool = False
    stop: Strings | None = None
    seed: Annotated[int | None, Field(ge=0, le=MAX_SEED)] = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    repetition_penalty: Annotated[float, Field(gt=0)] = 1.0
    ignore_eos: bool = False
    stream_options: dict[str, Any] | None = None
    logit_bias: dict[str, float] | None = None
    response_format: dict[str, Any] | None = None


class CompletionRequest(_Common):
    """Body of `/v1/completions`."""

    prompt: Annotated[Strings, Field(min_length=1, max_length=MAX_PROMPTS)]
    max_tokens: Annotated[int | None, Field(ge=1)] = DEFAULT_MAX_TOKENS
    logprobs: Annotated[int | None, Field(ge=0, le=MAX_ALTERNATIVES)] = None
    echo: bool = False
    suffix: str | None = None


def _parts(content: object) -> object:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class ChatMessage(BaseModel):
    """One message; content is parts of type `text`, or a text alone."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    role: str
    content: Annotated[list[dict[str, Any]], BeforeValidator(_parts)]

    def text(self) -> str:
        """The text of all parts.

        Raises:
            RequestError: a part is no text.
        """
        for part in self.content:
            if part.get("type") != "text":
                raise RequestError(
                    ErrorCode.INVALID_REQUEST, "messages: only parts of type 'text' are supported", "messages"
                )
        return "".join(str(part.get("text", "")) for part in self.content)


class ChatRequest(_Common):
    """Body of `/v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1)] = None
    logprobs: bool = False
    top_logprobs: Annotated[int | None, Field(ge=0, le=MAX_ALTERNATIVES)] = None
    tools: list[dict[str, Any]] | None = None


def check_supported(body: CompletionRequest | ChatRequest) -> None:
    """Refuse what would change the answer and is not there.

    Raises:
        RequestError: names the field and the remedy.
    """
    unsupported: Mapping[str, Any] = {
        "logit_bias": body.logit_bias,
        "suffix": getattr(body, "suffix", None),
        "tools": getattr(body, "tools", None),
    }
    for field, value in unsupported.items():
        if value:
            raise RequestError(ErrorCode.INVALID_REQUEST, f"{field} is not supported: leave it out", field)
    stops = body.stop or []
    if len(stops) > MAX_STOP_SEQUENCES or not all(stops):
        message = f"stop supports up to {MAX_STOP_SEQUENCES} strings, none empty; given are {len(stops)}"
        raise RequestError(ErrorCode.INVALID_REQUEST, message, "stop")
    if isinstance(body, CompletionRequest):
        if body.stream and len(body.prompt) * body.n > 1:
            raise RequestError(ErrorCode.INVALID_REQUEST, "stream needs a single prompt and n = 1", "stream")
        if body.stream and body.echo and body.logprobs is not None:
            message = "logprobs with echo is not supported in a stream: leave out one of the three"
            raise RequestError(ErrorCode.INVALID_REQUEST, message, "logprobs")
    elif body.stream and body.n > 1:
        raise RequestError(ErrorCode.INVALID_REQUEST, "stream needs n = 1", "n")


def to_generation(
    body: CompletionRequest | ChatRequest, ids: list[int], adapter: AdapterId | None, max_model_len: int, choice: int
) -> GenerationRequest:
    """The request for the engine; `choice` counts a prompt's answers, each with a seed of its own.

    Raises:
        RequestError: prompt and answer do not fit the model.
    """
    if isinstance(body, ChatRequest):
        max_tokens, field = body.max_completion_tokens or body.max_tokens, "messages"
        alternatives = body.top_logprobs or 0
    else:
        max_tokens, field, alternatives = body.max_tokens, "prompt", body.logprobs or 0
    seed = secrets.randbelow(MAX_SEED) if body.seed is None else body.seed
    return GenerationRequest(
        prompt=tuple(ids),
        params=SamplingParams(
            max_new_tokens=fit(len(ids), max_tokens, max_model_len, "max_tokens", field),
            sample=body.temperature > 0,
            seed=(seed + choice) % MAX_SEED,
            temperature=body.temperature or 1.0,
            top_k=body.top_k,
            top_p=body.top_p,
            repetition_penalty=body.repetition_penalty,
            frequency_penalty=body.frequency_penalty,
            presence_penalty=body.presence_penalty,
            ignore_eos=body.ignore_eos,
            alternatives=alternatives,
            logprobs=bool(body.logprobs) if isinstance(body, ChatRequest) else body.logprobs is not None,
            prompt_logprobs_from=1
            if isinstance(body, CompletionRequest) and body.echo and body.logprobs is not None
            else None,
        ),
        stop=tuple(body.stop or ()),
        adapter=adapter,
        grammar=grammar_of(body.response_format),
        field=field,
    )
