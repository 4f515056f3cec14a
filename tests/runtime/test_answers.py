"""What an answer may be asked for beside its text: a form, log-probabilities, a way of choosing; and its bounds."""

import itertools
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tests.models import make_adapter, make_tiny_llama
from tests.runtime.process import Reply, RuntimeProcess, runtime_process
from tests.waiting import eventually

pytestmark = pytest.mark.process

PROMPT = "Where is my parcel?"
SCHEMA = {
    "type": "object",
    "properties": {"topic": {"enum": ["parcel", "bill"]}, "sure": {"type": "boolean"}},
    "required": ["topic", "sure"],
    "additionalProperties": False,
}
NO_SUCH_TYPE = {"type": "no such type"}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("material")
    base = make_tiny_llama(folder / "tiny")
    make_adapter(folder / "voice-v1", base, seed=1)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["<beyond>"])
    tokenizer.save_pretrained(base)
    return folder


@pytest.fixture(scope="module")
def runtime(material: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RuntimeProcess]:
    with runtime_process(material / "tiny", tmp_path_factory.mktemp("logs")) as runtime:
        runtime.want(voice_v1=material / "voice-v1")
        eventually(lambda: runtime.ready().status == 200, seconds=60)
        yield runtime


def strict(text: str) -> Any:
    """JSON without what JSON does not have."""

    def refuse(name: str) -> Any:
        raise AssertionError(f"{name} in {text}")

    return json.loads(text, parse_constant=refuse)


def events(reply: Reply) -> list[Any]:
    """The events of a stream."""
    assert reply.status == 200, reply.text
    lines = [line.removeprefix("data:").strip() for line in reply.text.split("\n\n") if line]
    return [strict(line) for line in lines if line != "[DONE]"]


def lorax(runtime: RuntimeProcess, path: str = "/generate", **parameters: Any) -> Reply:
    return runtime.ask(path, {"inputs": PROMPT, "parameters": {"max_new_tokens": 8} | parameters})


def completion(runtime: RuntimeProcess, **more: Any) -> Reply:
    return runtime.ask("/v1/completions", {"model": "voice", "prompt": PROMPT, "max_tokens": 8} | more)


def chat(runtime: RuntimeProcess, **more: Any) -> Reply:
    body = {"model": "voice", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 8}
    return runtime.ask("/v1/chat/completions", body | more)


@pytest.mark.parametrize(
    "form",
    [
        {"type": "json_object", "schema": SCHEMA},
        {"type": "json_schema", "schema": SCHEMA},
        {"type": "json_schema", "json_schema": {"name": "topic", "schema": SCHEMA, "strict": True}},
    ],
    ids=["as lorax-client sends it", "LoRAX", "OpenAI"],
)
@pytest.mark.parametrize("sampled", [False, True], ids=["greedy", "sampled"])
def test_an_answer_follows_a_schema_whole_and_streamed(
    runtime: RuntimeProcess, form: dict[str, Any], sampled: bool
) -> None:
    choosing = {"do_sample": True, "temperature": 3.0, "seed": 1} if sampled else {}
    parameters = choosing | {"adapter_id": "voice@v1", "max_new_tokens": 300, "response_format": form}
    whole = lorax(runtime, **parameters).json()["generated_text"]
    assert json.loads(whole)["topic"] in ("parcel", "bill")
    assert events(lorax(runtime, "/generate_stream", **parameters))[-1]["generated_text"] == whole

    openai = {"max_tokens": 300, "response_format": form, "seed": 1, "temperature": 2.0 if sampled else 0}
    text = completion(runtime, **openai).json()["choices"][0]["text"]
    assert set(json.loads(text)) == {"topic", "sure"}
    chunks = events(completion(runtime, **openai, stream=True))
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == text
    said = chat(runtime, **openai).json()["choices"][0]
    assert set(json.loads(said["message"]["content"])) == {"topic", "sure"}
    assert said["finish_reason"] == "stop"


def test_an_answer_follows_a_regular_expression_or_is_any_object(runtime: RuntimeProcess) -> None:
    expression = r"(yes|no): [0-9]{3}"
    regex = {"type": "regex", "regex": expression}
    assert re.fullmatch(expression, lorax(runtime, response_format=regex, max_new_tokens=20).json()["generated_text"])
    text = completion(runtime, response_format=regex, max_tokens=20, seed=1).json()["choices"][0]["text"]
    assert re.fullmatch(expression, text)
    anything = completion(runtime, response_format={"type": "json_object"}, max_tokens=60, seed=1).json()
    assert anything["choices"][0]["text"].startswith("{")
    free = completion(runtime, response_format={"type": "text"}, temperature=0).json()["choices"][0]["text"]
    assert free == completion(runtime, temperature=0).json()["choices"][0]["text"]


@pytest.mark.parametrize(
    "form",
    [
        {"type": "json_object", "schema": NO_SUCH_TYPE},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": NO_SUCH_TYPE}},
        {"type": "json_object", "schema": "no schema"},
        {"type": "json_schema"},
        {"type": "regex", "regex": "(unclosed"},
        {"type": "regex", "regex": 3},
        {"type": "regex"},
        {"type": "xml"},
        {"schema": SCHEMA},
        {},
    ],
    ids=str,
)
def test_a_form_that_cannot_be_followed_is_refused_by_field_before_a_stream_begins(
    runtime: RuntimeProcess, form: dict[str, Any]
) -> None:
    for path in ("/", "/generate", "/generate_stream"):
        refused = lorax(runtime, path, response_format=form)
        assert (refused.status, refused.json()["error_type"]) == (422, "validation")
        assert "response_format" in refused.json()["error"]
    for ask, stream in itertools.product((completion, chat), (False, True)):
        refused = ask(runtime, response_format=form, stream=stream)
        assert (refused.status, refused.json()["error"]["param"]) == (400, "response_format")
        assert "response_format" in refused.json()["error"]["message"]
    assert lorax(runtime).status == 200


def test_no_lorax_answer_has_a_number_that_json_does_not(runtime: RuntimeProcess) -> None:
    flags = ("details", "decoder_input_details", "do_sample", "return_full_text")
    for values in itertools.product((False, True), repeat=len(flags)):
        for more in ({}, {"return_k_alternatives": 2}, {"best_of": 2}):
            parameters: dict[str, Any] = {**dict(zip(flags, values, strict=True)), **more}
            if "best_of" in more and not parameters["do_sample"]:
                continue
            reply = lorax(runtime, max_new_tokens=2, **parameters)
            assert reply.status == 200, (parameters, reply.text)
            details = strict(reply.text).get("details")
            assert (details is not None) == (parameters["details"] or parameters["decoder_input_details"])
            if details:
                assert all(token["logprob"] <= 0 for token in details["tokens"])
            if parameters["decoder_input_details"] or "best_of" in more:
                continue
            for event in events(lorax(runtime, "/generate_stream", max_new_tokens=2, **parameters)):
                assert event["token"]["logprob"] <= 0


def test_no_openai_answer_has_a_number_that_json_does_not(runtime: RuntimeProcess) -> None:
    for logprobs, echo, stream, count in itertools.product((None, 0, 2), (False, True), (False, True), (1, 2)):
        if stream and (count > 1 or (echo and logprobs is not None)):
            continue
        reply = completion(runtime, logprobs=logprobs, echo=echo, stream=stream, n=count, max_tokens=3)
        found = events(reply) if stream else [strict(reply.text)]
        choices = [choice for one in found for choice in one["choices"]]
        assert {choice["logprobs"] is None for choice in choices if choice["text"] != PROMPT} == {logprobs is None}
    for wanted, stream in itertools.product(
        ({}, {"logprobs": True}, {"logprobs": True, "top_logprobs": 2}), (False, True)
    ):
        reply = chat(runtime, **wanted, stream=stream, max_tokens=3)
        found = events(reply) if stream else [strict(reply.text)]
        rows = [one["choices"][0].get("logprobs") for one in found]
        assert any(rows) == bool(wanted)


def test_best_of_ranks_by_log_probabilities_that_nobody_asked_to_see(runtime: RuntimeProcess) -> None:
    reply = lorax(runtime, do_sample=True, best_of=2)
    assert reply.status == 200
    assert set(strict(reply.text)) == {"generated_text"}


def test_the_last_event_of_a_stream_has_the_stop_string_that_ended_it(runtime: RuntimeProcess) -> None:
    """One token is one byte: the stop string is put together from several, some of them held back."""
    greedy = {"max_new_tokens": 20, "ignore_eos_token": True, "details": True}
    text = lorax(runtime, **greedy).json()["generated_text"]
    stop = text[4:8]
    whole = lorax(runtime, **greedy, stop=["never this", stop]).json()
    streamed = events(lorax(runtime, "/generate_stream", **greedy, stop=["never this", stop]))
    end = text.index(stop) + len(stop)
    assert whole["generated_text"] == streamed[-1]["generated_text"] == text[:end]
    assert streamed[-1]["details"]["finish_reason"] == whole["details"]["finish_reason"] == "stop_sequence"
    chunks = events(
        completion(runtime, model="tiny", temperature=0, ignore_eos=True, stop=[stop], stream=True, max_tokens=20)
    )
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == text[: text.index(stop)]


WAYS: list[dict[str, Any]] = [
    {"typical_p": 0.5},
    {"top_k": 5, "temperature": 2.0},
    {"top_p": 0.7, "repetition_penalty": 1.3},
    {"do_sample": True, "frequency_penalty": 1.0, "presence_penalty": -0.5},
]


def test_a_seed_gives_the_same_answer_alone_and_among_others(runtime: RuntimeProcess) -> None:
    def ask(number: int) -> str:
        way = WAYS[number % len(WAYS)] | {"seed": number, "max_new_tokens": 40, "ignore_eos_token": True}
        way["adapter_id"] = "voice@v1" if number % 2 else None
        return str(lorax(runtime, **way).json()["generated_text"])

    alone = {number: ask(number) for number in range(12)}
    assert len(set(alone.values())) == 12
    assert {number: ask(number) for number in range(12)} == alone
    among: dict[int, str] = {}
    threads = [threading.Thread(target=lambda n=number: among.update({n: ask(n)})) for number in alone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert among == alone


def test_every_way_of_choosing_changes_the_answer(runtime: RuntimeProcess) -> None:
    common = {"seed": 3, "max_new_tokens": 40, "ignore_eos_token": True, "do_sample": True}
    plain = lorax(runtime, **common).json()["generated_text"]
    ways = [*WAYS[:3], {"frequency_penalty": 2.0}, {"presence_penalty": -2.0}, {"temperature": 0.3}]
    texts = [lorax(runtime, **common | way).json()["generated_text"] for way in ways]
    assert plain not in texts
    assert len(set(texts)) == len(texts)


HOSTILE: list[dict[str, Any]] = [
    {"top_k": 10**30},
    {"top_k": 2**31 - 1},
    {"temperature": 1e300},
    {"temperature": 1e300, "response_format": {"type": "json_object", "schema": SCHEMA}},
    {"repetition_penalty": 1e300},
    {"truncate": 10**30},
    {"seed": 10**30},
    {"max_new_tokens": 10**30},
    {"typical_p": 1e-300},
    {"top_p": 1e-300},
]


@pytest.mark.parametrize("poison", HOSTILE, ids=str)
def test_numbers_beyond_reason_are_answered_or_refused_and_nobody_else_notices(
    runtime: RuntimeProcess, poison: dict[str, Any]
) -> None:
    failures = runtime.metric("motet_runtime_step_failures_total")
    reply = lorax(runtime, do_sample=True, **poison)
    assert reply.status in (200, 422, 424), reply.text
    if reply.status == 422:
        assert next(iter(poison)) in reply.json()["error"]
    assert runtime.metric("motet_runtime_step_failures_total") == failures


@pytest.mark.parametrize("field", ["temperature", "repetition_penalty", "top_p"])
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_in_json_is_refused_by_field(runtime: RuntimeProcess, field: str, value: str) -> None:
    number = float(value)  # json.dumps writes it by that name
    refused = runtime.ask("/generate", {"inputs": "x", "parameters": {field: number}})
    assert refused.status == 422
    openai = completion(runtime, **{field: number})
    assert (openai.status, openai.json()["error"]["param"]) == (400, field)
    assert field in refused.json()["error"]


def test_a_token_that_only_the_tokenizer_knows_is_refused_and_nobody_else_notices(runtime: RuntimeProcess) -> None:
    failures = runtime.metric("motet_runtime_step_failures_total")
    refused = completion(runtime, prompt="x <beyond> y")
    assert (refused.status, refused.json()["error"]["param"]) == (400, "prompt")
    assert "'<beyond>'" in refused.json()["error"]["message"]
    judged = runtime.ask("/v1/classify", {"model": "tiny", "input": "x <beyond>", "labels": ["a"]})
    assert judged.status == 400
    assert runtime.metric("motet_runtime_step_failures_total") == failures


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"prompt": 5}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": "x" * 600}, "prompt"),
        ({"prompt": ["x", 5]}, "prompt.1"),
        ({"stop": 5}, "stop"),
        ({"stop": ["a", ""]}, "stop"),
        ({"max_tokens": 600}, "max_tokens"),
        ({"top_k": 0}, "top_k"),
        ({"logprobs": 50}, "logprobs"),
    ],
)
def test_errors_name_the_field_as_the_caller_has_it(runtime: RuntimeProcess, more: dict[str, Any], field: str) -> None:
    refused = completion(runtime, **more)
    assert (refused.status, refused.json()["error"]["param"]) == (400, field)
    assert field in refused.json()["error"]["message"]


def test_where_several_answers_are_wanted_and_one_fails_none_runs_on(runtime: RuntimeProcess) -> None:
    parameters = {"do_sample": True, "best_of": 2, "max_new_tokens": 400, "ignore_eos_token": True}
    assert lorax(runtime, repetition_penalty=1e300, **parameters).status in (200, 424)
    runtime.settled()


def test_after_all_of_this_nothing_is_held(runtime: RuntimeProcess) -> None:
    runtime.settled()
    assert runtime.ask("/livez", admin=True).status == 200
