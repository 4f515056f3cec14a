"""Asks a server by lorax-client in every way it has, and fails where the client or the answer does.

Run by an interpreter that has lorax-client (`hack/venv lorax`): URL, adapter id, and headers as name=value. Prints what
base and adapter answered, as JSON, for comparison with other ways of asking.
"""

import asyncio
import json
import sys
import warnings
from typing import Any

from lorax import AsyncClient, Client
from lorax.errors import NotFoundError, ValidationError
from lorax.types import Response, StreamResponse

PROMPT = "Where is my parcel? Où est mon colis?"
TOKENS = 8


def check_whole(response: Response, expected: str | None = None) -> str:
    """One answer: its details agree with its text."""
    details = response.details
    assert details is not None
    assert details.generated_tokens == len(details.tokens) <= TOKENS, details
    assert details.finish_reason.value in ("length", "eos_token"), details
    assert expected in (None, response.generated_text), (expected, response.generated_text)
    return response.generated_text


def check_stream(chunks: list[StreamResponse], expected: str) -> None:
    """A stream: the last event has the whole text, and the tokens add up to it."""
    assert chunks[-1].generated_text == expected, (chunks[-1].generated_text, expected)
    assert all(chunk.generated_text is None for chunk in chunks[:-1])
    text = "".join(chunk.token.text for chunk in chunks if not chunk.token.special)
    assert text == expected, (text, expected)
    assert chunks[-1].details is not None and chunks[-1].details.generated_tokens == len(chunks)


async def check_async(client: AsyncClient, options: dict[str, Any], expected: str) -> None:
    """The asynchronous client gives the same."""
    check_whole(await client.generate(PROMPT, **options), expected)
    check_stream([chunk async for chunk in client.generate_stream(PROMPT, **options)], expected)


def check_details(client: Client, options: dict[str, Any]) -> None:
    """Alternatives, prompt log-probabilities, best_of, stop, full text."""
    response = client.generate(PROMPT, **options, decoder_input_details=True, return_k_alternatives=3)
    details = response.details
    assert details is not None
    assert details.prefill[0].logprob is None
    assert len(details.prefill) == details.prompt_tokens
    assert all(token.logprob is not None and token.logprob <= 0 for token in details.prefill[1:])
    assert all(len(token.alternative_tokens or []) == 3 for token in details.tokens)
    best = client.generate(PROMPT, **options, do_sample=True, best_of=2)
    assert best.details is not None and len(best.details.best_of_sequences or []) == 1
    full = client.generate(PROMPT, **options, return_full_text=True).generated_text
    assert full == PROMPT + response.generated_text, full


def check_form(client: Client, options: dict[str, Any]) -> None:
    """Answers that follow a schema, whole and streamed."""
    schema = {
        "type": "object",
        "properties": {"topic": {"enum": ["parcel", "bill"]}},
        "required": ["topic"],
        "additionalProperties": False,
    }
    wanted = options | {"max_new_tokens": 200, "response_format": {"type": "json_object", "schema": schema}}
    text = client.generate(PROMPT, **wanted).generated_text
    assert json.loads(text)["topic"] in ("parcel", "bill"), text
    assert list(client.generate_stream(PROMPT, **wanted))[-1].generated_text == text


def check_errors(client: Client, adapter: str) -> None:
    """Errors arrive as the client's own exceptions, with their message."""
    cases: list[tuple[type[Exception], dict[str, Any]]] = [
        (NotFoundError, {"adapter_id": "nobody-has-this"}),
        (ValidationError, {"adapter_id": adapter, "max_new_tokens": 10**8}),
        (
            ValidationError,
            {"adapter_id": adapter, "response_format": {"type": "json_object", "schema": {"type": "no such"}}},
        ),
    ]
    for kind, options in cases:
        for call in (client.generate, lambda *a, **k: list(client.generate_stream(*a, **k))):
            try:
                call(PROMPT, **options)
            except (kind, ValidationError) as error:
                assert str(error), "an error without a message"
            else:
                raise AssertionError(f"{options} was answered")


def main() -> None:
    """Everything, for the base and for the adapter."""
    warnings.filterwarnings("ignore")
    url, adapter, *rest = sys.argv[1:]
    headers = dict(word.split("=", 1) for word in rest)
    client = Client(url, headers=headers)
    texts = []
    for adapter_id in (None, adapter):
        options: dict[str, Any] = {"adapter_id": adapter_id, "max_new_tokens": TOKENS}
        texts.append(check_whole(client.generate(PROMPT, **options)))
        check_stream(list(client.generate_stream(PROMPT, **options)), texts[-1])
        asyncio.run(check_async(AsyncClient(url, headers=headers), options, texts[-1]))
        check_details(client, options)
        check_form(client, options)
    assert texts[0] != texts[1], f"the adapter answers as the base does: {texts[0]!r}"
    check_errors(client, adapter)
    print(json.dumps({"prompt": PROMPT, "tokens": TOKENS, "base": texts[0], "adapter": texts[1]}))


if __name__ == "__main__":
    main()
