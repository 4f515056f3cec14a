"""What goes wrong for one adapter, one request or one client stays with it: the process and its neighbours go on."""

import json
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.models import edit_config, make_adapter, make_tiny_llama
from tests.runtime.process import Reply, RuntimeProcess, runtime_process
from tests.waiting import eventually

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
PROMPT = "Where is my parcel?"


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("material")
    base = make_tiny_llama(folder / "tiny")
    make_adapter(folder / "voice-v1", base, seed=1)
    edit_config(make_adapter(folder / "broken-v1", base, seed=2), rank_pattern=["q_proj"])
    return folder


@pytest.fixture(scope="module")
def runtime(material: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RuntimeProcess]:
    with runtime_process(material / "tiny", tmp_path_factory.mktemp("logs")) as runtime:
        runtime.want(broken_v1=material / "broken-v1", voice_v1=material / "voice-v1")
        eventually(lambda: runtime.ready().status == 200, seconds=60)
        yield runtime


def lorax(runtime: RuntimeProcess, path: str = "/generate", **parameters: Any) -> Reply:
    return runtime.ask(path, {"inputs": PROMPT, "parameters": {"max_new_tokens": 8} | parameters})


def test_a_broken_adapter_does_not_keep_a_new_pod_from_being_ready_or_others_from_serving(
    runtime: RuntimeProcess,
) -> None:
    assert runtime.reasons() == {"broken@v1": "InvalidConfig", "voice@v1": "Resident"}
    assert lorax(runtime, adapter_id="voice@v1").status == 200
    refused = lorax(runtime, adapter_id="broken@v1")
    assert (refused.status, refused.json()["code"]) == (503, "adapter_not_ready")
    assert "rank_pattern" in refused.json()["error"]


def test_a_source_that_cannot_be_read_is_a_failure_of_its_own(
    runtime: RuntimeProcess, material: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    runtime.want(voice_v1=material / "voice-v1", odd_v1=tmp_path / "file" / "below")
    eventually(lambda: runtime.reasons().get("odd@v1"), lambda reason: reason in ("SourceNotFound", "FetchFailed"))
    assert lorax(runtime, adapter_id="voice@v1").status == 200


@pytest.mark.parametrize(
    "poison", [{"temperature": 1e-40}, {"repetition_penalty": 1e-44, "do_sample": True}], ids=["temperature", "penalty"]
)
def test_a_request_whose_numbers_overflow_leaves_its_neighbours_alone(
    runtime: RuntimeProcess, poison: dict[str, Any]
) -> None:
    statuses: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: statuses.append(lorax(runtime, max_new_tokens=300, ignore_eos_token=True).status)
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    eventually(lambda: runtime.metric("vllm:num_requests_running") >= 1, seconds=5)
    assert lorax(runtime, **poison).status in (200, 424)
    for thread in threads:
        thread.join()
    assert statuses == [200] * 3


def test_the_tokens_of_a_stream_add_up_to_its_text(runtime: RuntimeProcess) -> None:
    """Random bytes: characters of several tokens, incomplete ones, and bytes that are none."""
    for seed in range(5):
        options = {"do_sample": True, "temperature": 5.0, "seed": seed, "ignore_eos_token": True, "max_new_tokens": 60}
        reply = lorax(runtime, "/generate_stream", **options)
        events = [json.loads(line.removeprefix("data:")) for line in reply.text.split("\n\n") if line]
        text = "".join(event["token"]["text"] for event in events if not event["token"]["special"])
        assert text == events[-1]["generated_text"] == lorax(runtime, **options).json()["generated_text"]


def test_openai_streams_echo_and_give_logprobs_as_whole_answers_do(runtime: RuntimeProcess) -> None:
    body = {"model": "voice", "prompt": PROMPT, "max_tokens": 6, "temperature": 0, "ignore_eos": True}

    def chunks(**more: Any) -> list[dict[str, Any]]:
        text = runtime.ask("/v1/completions", body | {"stream": True} | more).text
        lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
        return [json.loads(line)["choices"][0] for line in lines[:-1]]

    whole = runtime.ask("/v1/completions", body | {"logprobs": 2}).json()["choices"][0]
    assert "".join(chunk["text"] for chunk in chunks(echo=True)) == PROMPT + whole["text"]
    parts = [chunk["logprobs"] for chunk in chunks(logprobs=2)]
    for field in ("tokens", "text_offset", "token_logprobs"):
        found = [value for part in parts for value in part[field]]
        expected = whole["logprobs"][field]
        assert found == (pytest.approx(expected, rel=1e-4) if field == "token_logprobs" else expected)
    refused = runtime.ask("/v1/completions", body | {"stream": True, "echo": True, "logprobs": 1})
    assert (refused.status, refused.json()["error"]["param"]) == (400, "logprobs")


def test_a_conversation_that_the_models_template_refuses_is_the_callers_to_correct(runtime: RuntimeProcess) -> None:
    reply = runtime.ask(
        "/v1/chat/completions", {"model": "voice", "messages": [{"role": "nobody", "content": "x"}], "max_tokens": 2}
    )
    assert (reply.status, reply.json()["error"]["param"]) == (400, "messages")
    assert "nobody has no say" in reply.json()["error"]["message"]


def test_a_client_that_leaves_is_counted_as_such_and_not_as_a_fault_of_ours(runtime: RuntimeProcess) -> None:
    body = json.dumps({"inputs": PROMPT, "parameters": {"max_new_tokens": 480, "ignore_eos_token": True}}).encode()
    request = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    with socket.create_connection(("127.0.0.1", runtime.port)) as client:
        client.sendall(request + body)
        eventually(lambda: runtime.metric("vllm:num_requests_running") == 1, seconds=5)
    counted = 'motet_runtime_requests_total{route="/generate",status="499"} 1.0'
    metrics = eventually(lambda: runtime.ask("/metrics").text, lambda text: counted in text, seconds=5)
    assert 'status="500"' not in metrics


def test_the_http_layers_own_refusals_say_what_they_are(runtime: RuntimeProcess) -> None:
    wrong = runtime.ask("/generate", method="DELETE")
    assert (wrong.status, wrong.headers["Allow"]) == (405, "POST")
    large = runtime.ask("/generate", b'{"inputs": "' + b"x" * (17 << 20) + b'"}')
    assert (large.status, large.json()["code"]) == (413, "invalid_request")


def test_the_log_is_one_json_object_a_line_and_has_the_stages_of_the_start(runtime: RuntimeProcess) -> None:
    entries = [json.loads(line) for line in runtime.log.read_text().splitlines()]
    stages = [entry["stage"] for entry in entries if "stage" in entry]
    assert stages == ["imports", "weights", "tokenizer", "warm-up"]


def test_lorax_client_works_unmodified(runtime: RuntimeProcess) -> None:
    venv = subprocess.run([str(ROOT / "hack/venv"), "lorax"], capture_output=True, text=True, check=True).stdout.strip()
    command = [f"{venv}/bin/python", str(ROOT / "tests/lorax_client_check.py"), runtime.url, "voice@v1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["adapter"]


def test_a_request_that_does_not_end_does_not_hold_the_process_beyond_its_limit(material: Path, tmp_path: Path) -> None:
    options = ("--drain-grace-seconds", "0", "--drain-timeout-seconds", "0.2")
    with runtime_process(material / "tiny", tmp_path, *options) as runtime:
        runtime.want()
        eventually(lambda: runtime.ready().status == 200, seconds=60)
        parameters = {"max_new_tokens": 480, "ignore_eos_token": True}
        body = json.dumps({"inputs": PROMPT, "parameters": parameters}).encode()
        request = b"POST /generate_stream HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        clients = [socket.create_connection(("127.0.0.1", runtime.port)) for _ in range(200)]
        try:
            for client in clients:
                client.sendall(request + body)
            eventually(lambda: runtime.metric("vllm:num_requests_waiting") > 0, seconds=10)
            runtime.process.send_signal(signal.SIGTERM)
            assert runtime.process.wait(timeout=30) == 0
        finally:
            for client in clients:
                client.close()
