"""`/v1/classify` and `/v1/panels`: scores that agree with what the model would write, and a shared input read once."""

import json
import math
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tests.models import make_adapter, make_classifier, make_tiny_llama
from tests.runtime.process import RuntimeProcess, runtime_process
from tests.waiting import eventually

pytestmark = pytest.mark.process

CALL = "agent: how can I help? customer: my parcel is lost, and nobody answers the phone. "
"""Five blocks of tokens: one token is one byte."""
INVOCATION = "<judge>"
LABELS = ["yes", "no", "n"]
BLOCK = 16


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("material")
    base = make_tiny_llama(folder / "tiny")
    invocation = AutoTokenizer.from_pretrained(base)(INVOCATION)["input_ids"]
    make_adapter(folder / "voice-v1", base, seed=1)
    for seed, name in enumerate(("anger-v1", "churn-v1")):
        make_adapter(folder / name, base, seed=seed + 2, config={"alora_invocation_tokens": invocation})
    make_classifier(folder / "topic-v1", base, labels=3, seed=4)
    return folder


@pytest.fixture(scope="module")
def runtime(material: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RuntimeProcess]:
    with runtime_process(material / "tiny", tmp_path_factory.mktemp("logs"), "--block-size", str(BLOCK)) as runtime:
        names = ("voice-v1", "anger-v1", "churn-v1", "topic-v1")
        runtime.want(**{name.replace("-", "_"): material / name for name in names})
        eventually(lambda: runtime.ready().status == 200, seconds=60)
        yield runtime


def classify(runtime: RuntimeProcess, model: str, text: Any, labels: list[str] | None = None) -> Any:
    body = {"model": model, "input": text} | ({} if labels is None else {"labels": labels})
    reply = runtime.ask("/v1/classify", body)
    assert reply.status == 200, reply.text
    return reply.json()


def logprob_written(runtime: RuntimeProcess, model: str, prompt: str, label: str) -> float:
    """What the model gives the label when it is the end of a prompt that is echoed: another way through the engine."""
    body = {"model": model, "prompt": prompt + label, "max_tokens": 1, "echo": True, "logprobs": 0, "temperature": 0}
    values = runtime.ask("/v1/completions", body).json()["choices"][0]["logprobs"]["token_logprobs"]
    return float(sum(values[len(prompt) : len(prompt) + len(label)]))


@pytest.mark.parametrize("model", ["tiny", "voice@v1", "anger@v1"])
def test_a_labels_score_is_the_probability_that_the_model_would_write_it(runtime: RuntimeProcess, model: str) -> None:
    prompt = CALL + INVOCATION
    (judged,) = classify(runtime, model, prompt, LABELS)["data"]
    found = {row["label"]: row["logprob"] for row in judged["labels"]}
    expected = {label: logprob_written(runtime, model, prompt, label) for label in LABELS}
    assert found == pytest.approx(expected, rel=1e-3)
    assert sum(row["score"] for row in judged["labels"]) == pytest.approx(1.0)
    weights = [math.exp(expected[label]) for label in LABELS]
    scores = [row["score"] for row in judged["labels"]]
    assert scores == pytest.approx([weight / sum(weights) for weight in weights], rel=1e-2)
    assert judged["label"] == max(expected, key=expected.__getitem__)
    assert judged["score"] == max(scores)


def test_adapters_judge_differently_and_each_input_has_its_judgement(runtime: RuntimeProcess) -> None:
    texts = [CALL + INVOCATION, f"thank you {INVOCATION}"]
    both = classify(runtime, "anger@v1", texts, LABELS)
    assert [row["index"] for row in both["data"]] == [0, 1]
    alone = [classify(runtime, "anger@v1", text, LABELS)["data"][0] for text in texts]
    for one, other in zip(both["data"], alone, strict=True):
        assert [row["logprob"] for row in one["labels"]] == pytest.approx([row["logprob"] for row in other["labels"]])
    others = [classify(runtime, model, texts[0], LABELS)["data"][0]["labels"][0] for model in ("tiny", "churn@v1")]
    assert len({round(row["logprob"], 3) for row in [*others, alone[0]["labels"][0]]}) == 3
    assert both["usage"]["prompt_tokens"] == both["usage"]["total_tokens"] == sum(map(len, texts))


def test_a_head_scores_its_own_classes(runtime: RuntimeProcess) -> None:
    first, second = classify(runtime, "topic@v1", [CALL, "thank you"])["data"]
    assert [row["label"] for row in first["labels"]] == ["LABEL_0", "LABEL_1", "LABEL_2"]
    for judged in (first, second):
        assert sum(row["score"] for row in judged["labels"]) == pytest.approx(1.0)
        assert judged["label"] == max(judged["labels"], key=lambda row: row["score"])["label"]
    assert first["labels"] != second["labels"]
    generating = runtime.ask("/v1/completions", {"model": "topic@v1", "prompt": "x", "stream": True})
    assert generating.status == 400
    assert "/v1/classify" in generating.json()["error"]["message"]


def test_a_panel_answers_as_one_by_one_and_reads_what_is_shared_once(runtime: RuntimeProcess) -> None:
    suffix = f"{INVOCATION} is the customer angry? "
    members = [
        {"model": "anger@v1", "prompt": suffix, "labels": LABELS},
        {"model": "churn@v1", "prompt": suffix, "labels": ["no", "yes"]},
        {"model": "voice@v1", "prompt": suffix, "labels": LABELS},
        {"model": "tiny", "prompt": "angry? ", "labels": LABELS},
        {"model": "churn@v1", "prompt": f"will they leave? {INVOCATION}", "labels": ["a", "b"]},
        {"model": "topic@v1"},
    ]
    unseen = f"call number one. {CALL}"
    panel = runtime.ask("/v1/panels", {"input": unseen, "members": members}).json()
    shared = len(unseen) // BLOCK * BLOCK
    # Three of the four that share a beginning read what the first has computed.
    assert panel["usage"]["cached_tokens"] >= 3 * shared
    texts = [unseen + str(member.get("prompt", "")) for member in members]
    assert panel["usage"]["prompt_tokens"] == sum(map(len, texts))
    assert [row["adapter"] for row in panel["data"]] == [
        None if member["model"] == "tiny" else member["model"] for member in members
    ]
    for row, member, text in zip(panel["data"], members, texts, strict=True):
        labels: Any = member.get("labels")
        (alone,) = classify(runtime, str(member["model"]), text, labels)["data"]
        assert row["label"] == alone["label"]
        assert [one["label"] for one in row["labels"]] == [one["label"] for one in alone["labels"]]
        for field in ("score", "logprob"):
            expected = [one[field] for one in alone["labels"]]
            assert [one[field] for one in row["labels"]] == pytest.approx(expected, rel=1e-3)


REFUSED: list[tuple[str, dict[str, Any], int, str | None, list[str]]] = [
    ("classify", {"model": "tiny", "input": "x"}, 400, "labels", ["at least one label"]),
    ("classify", {"model": "tiny", "input": "x", "labels": ["a", ""]}, 400, "labels", ["empty label", "leave it out"]),
    ("classify", {"model": "tiny", "input": "x", "labels": ["a", "a"]}, 400, "labels", ["twice"]),
    ("classify", {"model": "topic@v1", "input": "x", "labels": ["a"]}, 400, "labels", ["head", "leave the labels out"]),
    ("classify", {"model": "tiny", "input": "", "labels": ["a"]}, 400, "input", ["1 to 512 tokens"]),
    ("classify", {"model": "tiny", "input": [], "labels": ["a"]}, 400, "input", ["at least 1 item"]),
    ("classify", {"model": "tiny", "input": "x" * 512, "labels": ["a"]}, 400, "input", ["1 to 512", "513"]),
    ("classify", {"model": "tiny", "input": "x" * 510, "labels": ["ab"]}, 400, "input", ["1 to 512", "513"]),
    ("classify", {"model": "nobody", "input": "x", "labels": ["a"]}, 404, None, ["nobody", "anger@v1"]),
    ("classify", {"input": "x", "labels": ["a"]}, 400, "model", ["model"]),
    (
        "classify",
        {"model": "anger@v1", "input": "x", "labels": ["a"]},
        400,
        "input",
        ["anger@v1", "activated LoRA", INVOCATION, "tokens [", "add it"],
    ),
    ("panels", {"input": "x", "members": []}, 400, "members", ["at least 1 item"]),
    ("panels", {"input": "x", "members": [{"model": "tiny"}]}, 400, "members.0.labels", ["at least one label"]),
    (
        "panels",
        {"input": "x", "members": [{"model": "tiny", "labels": ["a"]}, {"model": "gone@v1", "labels": ["a"]}]},
        404,
        None,
        ["gone@v1", "served are"],
    ),
    (
        "panels",
        {"input": "x", "members": [{"model": "tiny", "labels": ["a"]}, {"model": "churn@v1", "labels": ["a"]}]},
        400,
        "members.1.prompt",
        ["churn@v1", INVOCATION, "add it"],
    ),
    ("panels", {"input": "x", "members": [{"model": "tiny", "label": ["a"]}]}, 400, "members.0.label", ["label"]),
]


@pytest.mark.parametrize(("path", "body", "status", "field", "said"), REFUSED)
def test_what_cannot_be_judged_is_refused_by_field_with_the_remedy(
    runtime: RuntimeProcess, path: str, body: dict[str, Any], status: int, field: str | None, said: list[str]
) -> None:
    reply = runtime.ask(f"/v1/{path}", body)
    error = reply.json()["error"]
    assert (reply.status, error["param"]) == (status, field), error
    assert [word for word in said if word not in error["message"]] == []


def test_the_longest_prompt_with_a_label_of_several_tokens_is_judged(runtime: RuntimeProcess) -> None:
    (judged,) = classify(runtime, "tiny", "x" * 509, ["ab", "c"])["data"]
    assert all(math.isfinite(row["logprob"]) for row in judged["labels"])


def test_a_client_that_leaves_a_panel_frees_what_it_held(runtime: RuntimeProcess) -> None:
    members = [{"model": "voice@v1", "prompt": f"{number} " * 40, "labels": LABELS} for number in range(200)]
    body = json.dumps({"input": CALL, "members": members}).encode()
    request = b"POST /v1/panels HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    with socket.create_connection(("127.0.0.1", runtime.port)) as client:
        client.sendall(request + body)
        eventually(lambda: runtime.metric("vllm:num_requests_waiting") > 0, seconds=20)
    runtime.settled()
    assert 'motet_runtime_requests_total{route="/v1/panels",status="499"} 1.0' in runtime.ask("/metrics").text
