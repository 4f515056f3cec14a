"""When two answers agree, and how far apart their scores are."""

import json
from typing import Any

import pytest

from motet_gateway.comparison import Comparison, compare


def one(body: Any) -> bytes:
    return json.dumps(body).encode()


def events(*bodies: Any) -> bytes:
    return b"".join(b"data: " + one(body) + b"\n\n" for body in bodies) + b"data: [DONE]\n\n"


def classified(*rows: dict[str, float]) -> bytes:
    data = [
        {"label": max(row, key=row.__getitem__), "labels": [{"label": name, "score": row[name]} for name in row]}
        for row in rows
    ]
    return one({"object": "list", "data": data})


def completed(text: str) -> bytes:
    return one({"id": "x", "choices": [{"index": 0, "text": text}]})


CHAT = one({"choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}}]})
CHAT_EVENTS = events(
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
    {"choices": [{"index": 0, "delta": {"content": "ye"}}]},
    {"choices": [{"index": 0, "delta": {"content": "s"}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {}},
)
LORAX_EVENTS = events(
    {"token": {"text": "yes"}, "generated_text": None}, {"token": {"text": ""}, "generated_text": "yes"}
)


@pytest.mark.parametrize(
    ("mine", "theirs", "found"),
    [
        (completed("yes"), completed("yes"), Comparison(True)),
        (completed("yes"), completed("no"), Comparison(False)),
        (events({"choices": [{"text": "ye"}]}, {"choices": [{"text": "s"}]}), completed("yes"), Comparison(True)),
        (CHAT_EVENTS, CHAT, Comparison(True)),
        (LORAX_EVENTS, one({"generated_text": "yes"}), Comparison(True)),
        (one([{"generated_text": "yes"}]), one({"generated_text": "yes"}), Comparison(True)),
        (one({"generated_text": "yes"}), one({"generated_text": "yes "}), Comparison(False)),
    ],
)
def test_texts(mine: bytes, theirs: bytes, found: Comparison) -> None:
    assert compare(mine, theirs) == found


def test_labels_and_their_probabilities() -> None:
    same = compare(classified({"yes": 0.75, "no": 0.25}), classified({"yes": 0.625, "no": 0.375}))
    assert same == Comparison(True, 0.125)
    other = compare(classified({"yes": 1.0, "no": 0.0}), classified({"yes": 0.0, "no": 1.0}))
    assert other == Comparison(False, 1.0)
    several = compare(
        classified({"yes": 1.0, "no": 0.0}, {"yes": 1.0, "no": 0.0}),
        classified({"yes": 1.0, "no": 0.0}, {"yes": 0.5, "no": 0.5}),
    )
    assert several == Comparison(True, 0.25)
    fewer = compare(classified({"yes": 1.0}), classified({"yes": 1.0}, {"yes": 1.0}))
    assert fewer == Comparison(False, None)


@pytest.mark.parametrize(
    "body",
    [
        None,
        b"",
        b"not JSON",
        one({"error": {"code": "generation_failed"}}),
        events({"choices": [{"text": "ye"}]}, {"error": {"code": "generation_failed"}}),
        one({"data": [{"labels": "odd"}]}),
        one({"data": []}),
        one({"choices": ["odd"]}),
        one({"something": "else"}),
        classified({"yes": 1.0}),
    ],
)
def test_what_cannot_be_compared(body: bytes | None) -> None:
    assert compare(completed("yes"), body) is None
    assert compare(body, completed("yes")) is None
