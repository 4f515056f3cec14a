"""The runtime as its users meet it: a process, its probes, its routes, its errors, its end."""

import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from motet_api.errors import speaks_lorax
from motet_runtime.adapters.artifact import folder_digest
from tests.models import make_adapter, make_tiny_llama
from tests.runtime.process import Reply, RuntimeProcess, runtime_process
from tests.waiting import eventually

pytestmark = pytest.mark.process

PROMPT = "Where is my parcel?"


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("material")
    base = make_tiny_llama(folder / "tiny")
    for seed, name in enumerate(("voice-v1", "voice-v2", "other-v1")):
        make_adapter(folder / name, base, seed=seed + 1)
    return folder


@pytest.fixture(scope="module")
def runtime(material: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RuntimeProcess]:
    with runtime_process(material / "tiny", tmp_path_factory.mktemp("logs"), "--max-batch-size", "8") as runtime:
        runtime.want(voice_v1=material / "voice-v1", voice_v2=material / "voice-v2", other_v1=material / "other-v1")
        eventually(lambda: runtime.ready().status == 200, seconds=60)
        yield runtime


def completion(runtime: RuntimeProcess, model: str, **more: Any) -> Reply:
    body = {"model": model, "prompt": PROMPT, "max_tokens": 6, "temperature": 0, "ignore_eos": True} | more
    return runtime.ask("/v1/completions", body)


def test_liveness_readiness_and_drain_are_three_answers(material: Path, tmp_path: Path) -> None:
    with runtime_process(material / "tiny", tmp_path, "--drain-grace-seconds", "0.2") as runtime:
        assert runtime.ask("/livez", admin=True).status == 200, "alive from the first moment"
        first = runtime.ready()
        assert first.status == 503
        eventually(lambda: runtime.ready().json()["reason"], lambda reason: "no desired adapters" in str(reason), 60)
        assert runtime.ask("/health").status == 200, "the base alone is served"

        runtime.want(voice_v1=material / "voice-v1", bad_v1=material / "nowhere")
        eventually(lambda: runtime.ready().json()["reason"], lambda reason: "bad@v1" in str(reason))
        assert runtime.ready().status == 503, "a source that may appear keeps a new pod unready for a while"
        runtime.want(voice_v1=material / "voice-v1")
        eventually(lambda: runtime.ready().status, lambda status: status == 200)
        runtime.want(voice_v1=material / "voice-v1", bad_v1=material / "nowhere")
        eventually(lambda: runtime.reasons().get("bad@v1"), lambda reason: reason == "SourceNotFound")
        assert runtime.ready().status == 200, "a pod that was ready stays so"

        assert runtime.ask("/motet/v1/drain", admin=True).json() == {"draining": False, "inFlight": 0}
        assert runtime.ask("/motet/v1/drain", method="POST", admin=True).json()["draining"] is True
        assert runtime.ready().json()["reason"] == "draining"
        assert runtime.ask("/livez", admin=True).status == 200
        refused = eventually(lambda: completion(runtime, "voice@v1"), lambda reply: reply.status == 503)
        assert refused.json()["error"]["code"] == "draining"
        assert refused.headers["Retry-After"]


def test_base_and_versions_answer_differently_and_say_who_they_are(runtime: RuntimeProcess) -> None:
    texts = {}
    for model in ("tiny", "voice@v1", "voice@v2", "other"):
        reply = completion(runtime, model)
        assert reply.status == 200
        assert reply.headers["x-motet-pod"] == "pod-0"
        texts[model] = reply.json()["choices"][0]["text"]
        name, _, version = {"other": "other@v1"}.get(model, model).partition("@")
        assert (reply.headers["x-motet-adapter"], reply.headers["x-motet-adapter-version"]) == (
            (name, version) if version else (None, None)
        )
    assert len(set(texts.values())) == len(texts)


@pytest.mark.parametrize(
    ("model", "status", "code", "said"),
    [
        ("voice@v9", 404, "version_not_found", "voice@v1, voice@v2"),
        ("nobody", 404, "adapter_not_found", "other@v1, voice@v1, voice@v2"),
        ("voice", 400, "model_ambiguous", "voice@v1, voice@v2"),
    ],
)
def test_an_adapter_that_is_not_resident_is_an_error_by_name(
    runtime: RuntimeProcess, model: str, status: int, code: str, said: str
) -> None:
    reply = completion(runtime, model)
    assert (reply.status, reply.json()["error"]["code"]) == (status, code)
    assert said in reply.json()["error"]["message"]
    lorax = runtime.ask("/generate", {"inputs": PROMPT, "parameters": {"adapter_id": model}})
    assert lorax.json()["code"] == code
    assert said in lorax.json()["error"]


BAD_BODIES: list[tuple[str, Any, int, str]] = [
    ("/generate", {"inputs": ""}, 422, "`inputs` cannot be empty"),
    (
        "/generate",
        {"inputs": "x", "parameters": {"best_of": 3, "do_sample": True}},
        422,
        "`best_of` must be > 0 and <= 2",
    ),
    ("/generate", {"inputs": "x", "parameters": {"best_of": 2}}, 422, "you must use sampling"),
    ("/generate", {"inputs": "x", "parameters": {"temperature": -1}}, 422, "`temperature` must be non-negative"),
    ("/generate", {"inputs": "x", "parameters": {"top_p": 1.5}}, 422, "`top_p`"),
    ("/generate", {"inputs": "x", "parameters": {"max_new_tokens": 0}}, 422, "`max_new_tokens`"),
    ("/generate", {"inputs": "x", "parameters": {"max_new_tokens": 9999}}, 422, "must be <= 512"),
    ("/generate", {"inputs": "x" * 600}, 422, "must have less than 512 tokens"),
    ("/generate", {"inputs": "x", "parameters": {"stop": ["a", "b", "c", "d", "e"]}}, 422, "`stop` supports up to 4"),
    ("/generate", {"inputs": "x", "parameters": {"merged_adapters": {"ids": ["a"]}}}, 422, "`merged_adapters`"),
    ("/generate", {"inputs": "x", "parameters": {"watermark": True}}, 422, "`watermark`"),
    ("/generate", {"inputs": 7}, 422, "inputs"),
    ("/generate", b"{", 422, "Invalid JSON"),
    ("/generate_stream", {"inputs": "x", "parameters": {"decoder_input_details": True}}, 422, "streaming"),
    ("/v1/completions", {"prompt": "x"}, 400, "model"),
    ("/v1/completions", {"model": "tiny", "prompt": "x", "temperature": 3}, 400, "temperature"),
    ("/v1/completions", {"model": "tiny", "prompt": "x", "logit_bias": {"1": 1}}, 400, "logit_bias is not supported"),
    ("/v1/completions", {"model": "tiny", "prompt": ["x", "y"], "stream": True}, 400, "stream needs a single prompt"),
    ("/v1/chat/completions", {"model": "tiny", "messages": []}, 400, "messages"),
    ("/v1/nothing", {}, 404, "/v1/nothing"),
    ("/nothing", {}, 404, "/nothing"),
    ("/classify", {"inputs": "x"}, 404, "/classify"),
]


@pytest.mark.parametrize(("path", "body", "status", "said"), BAD_BODIES)
def test_bad_input_is_refused_in_json_that_names_the_field(
    runtime: RuntimeProcess, path: str, body: Any, status: int, said: str
) -> None:
    reply = runtime.ask(path, body)
    assert reply.status == status
    error = reply.json()["error"]
    assert said in (error if speaks_lorax(path) else error["message"])


def test_a_wrong_method_is_refused_in_json(runtime: RuntimeProcess) -> None:
    assert runtime.ask("/generate", method="DELETE").json()["code"] == "method_not_allowed"
    assert runtime.ask("/motet/v1/adapters", {"adapters": []}, method="PUT").status == 405, "not on the serving port"


def test_lorax_answers_have_their_shape(runtime: RuntimeProcess) -> None:
    parameters = {
        "adapter_id": "voice@v1",
        "max_new_tokens": 4,
        "details": True,
        "decoder_input_details": True,
        "return_k_alternatives": 2,
        "ignore_eos_token": True,
    }
    (answer,) = runtime.ask("/", {"inputs": PROMPT, "parameters": parameters}).json()
    details = answer["details"]
    assert (details["finish_reason"], details["generated_tokens"], details["prompt_tokens"]) == (
        "length",
        4,
        len(PROMPT),
    )
    assert details["prefill"][0]["logprob"] is None
    assert all(token["logprob"] < 0 for token in details["prefill"][1:])
    assert [len(token["alternative_tokens"]) for token in details["tokens"]] == [2] * 4
    assert all(token["alternative_tokens"][0]["id"] == token["id"] for token in details["tokens"]), "greedy"
    assert "details" not in runtime.ask("/generate", {"inputs": PROMPT}).json()


def test_a_stream_holds_the_same_tokens_and_ends_with_the_text(runtime: RuntimeProcess) -> None:
    parameters = {"adapter_id": "voice@v1", "max_new_tokens": 6, "details": True, "ignore_eos_token": True}
    whole = runtime.ask("/generate", {"inputs": PROMPT, "parameters": parameters}).json()
    reply = runtime.ask("/generate_stream", {"inputs": PROMPT, "parameters": parameters})
    events = [json.loads(line.removeprefix("data:")) for line in reply.text.split("\n\n") if line]
    assert [event["token"]["id"] for event in events] == [token["id"] for token in whole["details"]["tokens"]]
    assert events[-1]["generated_text"] == whole["generated_text"]
    assert events[-1]["details"]["finish_reason"] == "length"
    assert reply.headers["x-motet-adapter-version"] == "v1"


def test_openai_streams_add_up_and_end_with_done(runtime: RuntimeProcess) -> None:
    whole = completion(runtime, "voice@v2").json()
    reply = completion(runtime, "voice@v2", stream=True, stream_options={"include_usage": True})
    lines = [line.removeprefix("data: ") for line in reply.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks[:-1]) == whole["choices"][0]["text"]
    assert chunks[-1]["usage"] == whole["usage"]


def test_stop_strings_end_an_answer_and_are_left_out_of_openai_text(runtime: RuntimeProcess) -> None:
    text = completion(runtime, "tiny", max_tokens=12).json()["choices"][0]["text"]
    stop = text[3:5]
    choice = completion(runtime, "tiny", max_tokens=12, stop=stop).json()["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == (text[: text.index(stop)], "stop")
    lorax = runtime.ask(
        "/generate", {"inputs": PROMPT, "parameters": {"max_new_tokens": 12, "stop": [stop], "details": True}}
    )
    assert lorax.json()["generated_text"] == text[: text.index(stop) + len(stop)]
    assert lorax.json()["details"]["finish_reason"] == "stop_sequence"


def test_a_seed_makes_sampling_repeatable(runtime: RuntimeProcess) -> None:
    texts = [
        completion(runtime, "tiny", temperature=1.5, top_p=0.95, seed=seed, max_tokens=20).json()["choices"][0]["text"]
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_best_of_returns_the_likelier_answer_first(runtime: RuntimeProcess) -> None:
    parameters = {"do_sample": True, "best_of": 2, "max_new_tokens": 6, "details": True}
    answer = runtime.ask("/generate", {"inputs": PROMPT, "parameters": parameters}).json()
    (other,) = answer["details"]["best_of_sequences"]

    def mean(tokens: list[dict[str, Any]]) -> float:
        return float(sum(token["logprob"] for token in tokens)) / len(tokens)

    assert mean(answer["details"]["tokens"]) >= mean(other["tokens"])


def test_chat_goes_through_the_models_template(runtime: RuntimeProcess) -> None:
    chat = {"model": "tiny", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 5, "temperature": 0}
    answer = runtime.ask("/v1/chat/completions", chat).json()
    same = completion(runtime, "tiny", prompt=f"user: {PROMPT}\nassistant:", max_tokens=5, ignore_eos=False).json()
    assert answer["choices"][0]["message"]["content"] == same["choices"][0]["text"]
    assert answer["object"] == "chat.completion"


def test_models_tokens_and_metrics_are_listed(runtime: RuntimeProcess) -> None:
    models = runtime.ask("/v1/models").json()["data"]
    assert [(row["id"], row["parent"]) for row in models] == [
        ("tiny", None),
        ("other@v1", "tiny"),
        ("voice@v1", "tiny"),
        ("voice@v2", "tiny"),
    ]
    assert [row["text"] for row in runtime.ask("/tokenize", {"inputs": "abc"}).json()] == ["a", "b", "c"]
    assert completion(runtime, "voice@v1").status == 200
    metrics = runtime.ask("/metrics").text
    assert 'motet_runtime_generated_tokens_total{adapter="voice@v1"}' in metrics
    assert "vllm:num_requests_running 0.0" in metrics
    assert 'motet_runtime_startup_seconds{stage="weights"}' in metrics


def test_concurrent_requests_of_different_adapters_share_the_batch(runtime: RuntimeProcess) -> None:
    models = ["tiny", "voice@v1", "voice@v2", "other@v1"] * 4
    alone = {model: completion(runtime, model, max_tokens=30).json()["choices"][0]["text"] for model in set(models)}
    found: list[tuple[str, str]] = []

    def ask(model: str) -> None:
        found.append((model, completion(runtime, model, max_tokens=30).json()["choices"][0]["text"]))

    threads = [threading.Thread(target=ask, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted((model, alone[model]) for model in models)


def test_a_client_that_leaves_frees_its_place(runtime: RuntimeProcess) -> None:
    body = json.dumps({"model": "tiny", "prompt": "x", "max_tokens": 500, "ignore_eos": True, "stream": True})
    command = ["curl", "-sN", "--max-time", "0.3", "-d", body, "-H", "content-type: application/json"]
    for stream in (body, body.replace('"stream": true', '"stream": false')):
        subprocess.run(
            [*command[:5], stream, *command[6:], f"{runtime.url}/v1/completions"], capture_output=True, check=False
        )
        runtime.settled()


def test_a_version_is_unloaded_only_when_its_last_request_has_ended(material: Path, tmp_path: Path) -> None:
    with runtime_process(material / "tiny", tmp_path) as runtime:
        runtime.want(voice_v1=material / "voice-v1")
        eventually(lambda: runtime.ready().status == 200, seconds=60)
        replies: list[Reply] = []
        thread = threading.Thread(target=lambda: replies.append(completion(runtime, "voice@v1", max_tokens=450)))
        thread.start()
        eventually(lambda: runtime.ask("/motet/v1/drain", admin=True).json()["inFlight"] == 1)
        runtime.want()
        assert runtime.reasons() == {"voice@v1": "Draining"}
        assert completion(runtime, "voice@v1").status == 404
        thread.join()
        assert replies[0].status == 200
        assert replies[0].json()["usage"]["completion_tokens"] == 450
        eventually(lambda: runtime.reasons() == {})


def test_sigterm_finishes_what_is_in_flight(material: Path, tmp_path: Path) -> None:
    with runtime_process(material / "tiny", tmp_path, "--drain-grace-seconds", "0.5") as runtime:
        runtime.want()
        eventually(lambda: runtime.ready().status == 200, seconds=60)
        replies: list[Reply] = []
        thread = threading.Thread(
            target=lambda: replies.append(completion(runtime, "tiny", max_tokens=500 - len(PROMPT)))
        )
        thread.start()
        eventually(lambda: runtime.ask("/motet/v1/drain", admin=True).json()["inFlight"] == 1)
        runtime.process.send_signal(signal.SIGTERM)
        eventually(lambda: runtime.ready().json()["reason"] == "draining")
        assert completion(runtime, "tiny").status == 200, "served on for a grace period"
        thread.join()
        assert replies[0].status == 200
        assert runtime.process.wait(timeout=20) == 0


def test_a_model_that_cannot_be_served_ends_the_process_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with runtime_process(tmp_path / "empty", tmp_path) as runtime:
        assert runtime.process.wait(timeout=60) == 1
        assert "has no config.json" in runtime.log.read_text()


def test_digest_command_prints_what_the_report_says(runtime: RuntimeProcess, material: Path) -> None:
    report = {row["id"]: row for row in runtime.ask("/motet/v1/adapters").json()["adapters"]}
    assert report["voice@v1"]["digest"] == folder_digest(material / "voice-v1")
    assert report["voice@v1"]["rank"] == 4
