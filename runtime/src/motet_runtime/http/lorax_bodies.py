"""Bodies of the LoRAX routes and their meaning as generation requests.

Fields and limits as in LoRAX (router/src/lib.rs, validation.rs, as of 2026-05); unknown fields are ignored as there.
"""

import secrets
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from motet_api.errors import ErrorCode
from motet_api.identity import AdapterId
from motet_runtime.engine.sequence import SamplingParams
from motet_runtime.errors import RequestError
from motet_runtime.generation import GenerationRequest
from motet_runtime.http.formats import grammar_of

MAX_STOP_SEQUENCES: Final = 4
MAX_BEST_OF: Final = 2
MAX_ALTERNATIVES: Final = 20
MAX_SEED: Final = 2**63 - 1
MAX_TOP_K: Final = 2**31 - 1
"""More is no vocabulary, and a number that does not fit the step's tensor would end the whole step."""


class LoraxParameters(BaseModel):
    """`parameters` of a LoRAX request. Ranges are checked in `check`, in LoRAX's own words."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    adapter_id: str | None = None
    adapter_source: str | None = None
    merged_adapters: dict[str, Any] | None = None
    best_of: int | None = None
    temperature: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    typical_p: float | None = None
    do_sample: bool = False
    max_new_tokens: int | None = None
    ignore_eos_token: bool = False
    return_full_text: bool | None = None
    stop: list[str] = []
    truncate: int | None = None
    watermark: bool = False
    details: bool = False
    decoder_input_details: bool = False
    return_k_alternatives: int | None = None
    seed: Annotated[int | None, Field(ge=0, le=MAX_SEED)] = None
    response_format: dict[str, Any] | None = None


class LoraxRequest(BaseModel):
    """Body of `/`, `/generate`, `/generate_stream` and `/invocations`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    inputs: str
    stream: bool = False
    parameters: LoraxParameters = LoraxParameters()


class TokenizeRequest(BaseModel):
    """Body of `/tokenize`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    inputs: str
    add_special_tokens: bool = True


def check(body: LoraxRequest, stream: bool) -> None:
    """Check ranges and combinations.

    Raises:
        RequestError: names the field and the remedy.
    """
    p = body.parameters
    best_of = p.best_of or 1
    sampling = is_sampling(p)
    rules: list[tuple[bool, str, str]] = [
        (body.inputs != "", "inputs", "`inputs` cannot be empty"),
        (p.best_of is None or 1 <= p.best_of <= MAX_BEST_OF, "best_of", _range("best_of", MAX_BEST_OF, p.best_of)),
        (best_of == 1 or sampling, "best_of", "you must use sampling when `best_of` is > 1"),
        (best_of == 1 or p.seed is None, "seed", "`seed` must not be set when `best_of` > 1"),
        (not stream or best_of == 1, "best_of", "`best_of` != 1 is not supported when streaming tokens"),
        (
            not (stream and p.decoder_input_details),
            "decoder_input_details",
            "`decoder_input_details` == true is not supported when streaming tokens",
        ),
        (p.temperature is None or p.temperature >= 0, "temperature", "`temperature` must be non-negative"),
        (_positive(p.repetition_penalty), "repetition_penalty", "`repetition_penalty` must be strictly positive"),
        (_penalty(p.frequency_penalty), "frequency_penalty", "`frequency_penalty` must be >= -2.0 and <= 2.0"),
        (_penalty(p.presence_penalty), "presence_penalty", "`presence_penalty` must be >= -2.0 and <= 2.0"),
        (p.top_p is None or 0 < p.top_p <= 1, "top_p", "`top_p` must be > 0.0 and <= 1.0"),
        (p.typical_p is None or 0 < p.typical_p < 1, "typical_p", "`typical_p` must be > 0.0 and < 1.0"),
        (
            p.top_k is None or 0 < p.top_k <= MAX_TOP_K,
            "top_k",
            f"`top_k` must be strictly positive and at most {MAX_TOP_K}",
        ),
        (
            p.return_k_alternatives is None or 0 < p.return_k_alternatives <= MAX_ALTERNATIVES,
            "return_k_alternatives",
            f"`return_k_alternatives` must be strictly positive and at most {MAX_ALTERNATIVES}",
        ),
        (_positive(p.truncate), "truncate", "`truncate` must be strictly positive"),
        (_positive(p.max_new_tokens), "max_new_tokens", "`max_new_tokens` must be strictly positive"),
        (
            len(p.stop) <= MAX_STOP_SEQUENCES and all(p.stop),
            "stop",
            f"`stop` supports up to {MAX_STOP_SEQUENCES} stop sequences, none empty. Given: {len(p.stop)}",
        ),
        (p.merged_adapters is None, "merged_adapters", "`merged_adapters` is not supported: name one `adapter_id`"),
        (not p.watermark, "watermark", "`watermark` is not supported: leave it out"),
    ]
    for holds, field, message in rules:
        if not holds:
            raise RequestError(ErrorCode.INVALID_REQUEST, f"Input validation error: {message}", field)


def is_sampling(parameters: LoraxParameters) -> bool:
    """Whether a request samples: asked for, or implied by a sampling parameter, as in LoRAX."""
    p = parameters
    if p.temperature == 0:
        return False
    warped = (p.temperature not in (None, 1.0), p.top_k is not None, p.top_p is not None, p.typical_p is not None)
    return p.do_sample or any(warped)


def to_generation(
    body: LoraxRequest, ids: list[int], adapter: AdapterId | None, max_model_len: int, stream: bool
) -> GenerationRequest:
    """The request for the engine.

    Raises:
        RequestError: prompt and answer do not fit the model.
    """
    p = body.parameters
    # Documented of LoRAX (its router ignores it): keep the last tokens.
    prompt = ids[-p.truncate :] if p.truncate else ids
    new_tokens = fit(len(prompt), p.max_new_tokens, max_model_len, "max_new_tokens")
    return GenerationRequest(
        prompt=tuple(prompt),
        params=SamplingParams(
            max_new_tokens=new_tokens,
            sample=is_sampling(p),
            seed=secrets.randbelow(MAX_SEED) if p.seed is None else p.seed,
            temperature=p.temperature or 1.0,
            top_k=p.top_k,
            top_p=p.top_p,
            typical_p=p.typical_p,
            repetition_penalty=p.repetition_penalty or 1.0,
            frequency_penalty=p.frequency_penalty or 0.0,
            presence_penalty=p.presence_penalty or 0.0,
            ignore_eos=p.ignore_eos_token,
            alternatives=p.return_k_alternatives or 0,
            logprobs=stream or p.details or p.decoder_input_details or (p.best_of or 1) > 1,
            prompt_logprobs_from=1 if p.decoder_input_details else None,
        ),
        stop=tuple(p.stop),
        adapter=adapter,
        grammar=grammar_of(p.response_format),
    )


def fit(prompt: int, new_tokens: int | None, max_model_len: int, field: str, prompt_field: str = "inputs") -> int:
    """Tokens to generate: as asked, or all that the model has room for. The fields are what the caller calls them.

    Raises:
        RequestError: prompt and answer do not fit.
    """
    if prompt == 0:
        message = f"Input validation error: `{prompt_field}` has no tokens"
        raise RequestError(ErrorCode.INVALID_REQUEST, message, prompt_field)
    if prompt >= max_model_len:
        message = f"`{prompt_field}` must have less than {max_model_len} tokens. Given: {prompt}"
        raise RequestError(ErrorCode.INVALID_REQUEST, f"Input validation error: {message}", prompt_field)
    if new_tokens is None:
        return max_model_len - prompt
    if prompt + new_tokens > max_model_len:
        message = (
            f"`{prompt_field}` tokens + `{field}` must be <= {max_model_len}. "
            f"Given: {prompt} `{prompt_field}` tokens and {new_tokens} `{field}`"
        )
        raise RequestError(ErrorCode.INVALID_REQUEST, f"Input validation error: {message}", field)
    return new_tokens


def _range(name: str, most: int, given: int | None) -> str:
    return f"`{name}` must be > 0 and <= {most}. Given: {given}"


def _positive(value: float | None) -> bool:
    return value is None or value > 0


def _penalty(value: float | None) -> bool:
    return value is None or -2.0 <= value <= 2.0
