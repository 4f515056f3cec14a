"""`/debug/keys`: where a key is, how it went and why; bounded."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from motet_operator.keys import Kind, ModelKey
from motet_operator.kube.index import Index
from motet_operator.passes.decide import Delete
from motet_operator.running.debug_page import make_debug_page
from motet_operator.running.journal import KEYS, LONGEST_TEXT, REASONS, Journal, describe
from motet_operator.running.queue import KeyState, Place
from tests.operator.factories import KEY, NOW, decided, raw_model, settled
from tests.operator.factories import model as make_model


@dataclass
class Places:
    entries: dict[ModelKey, Place]

    def places(self) -> Iterator[tuple[ModelKey, Place]]:
        yield from self.entries.items()


OTHER = ModelKey("speech", "other")


def journal() -> Journal:
    made = Journal(lambda: NOW)
    made.decided(KEY, [Delete(Kind.AUTOSCALER, "llama", "uid", "spec.autoscaling is gone")])
    made.decided(KEY, decided(settled(make_model())).actions)
    made.pass_ended(KEY, "retry", 0.1239, "no answer")
    return made


async def ask(path: str, *, places: dict[ModelKey, Place] | None = None) -> tuple[int, Any]:
    index = Index()
    index.put(Kind.MODEL_DEPLOYMENT, raw_model())
    index.put(Kind.MODEL_DEPLOYMENT, raw_model(name="other"))
    where = Places(places if places is not None else {KEY: Place(KeyState.LATER, 12.34, 2)})
    app = make_debug_page(index, where, journal(), lambda: True, lambda: NOW + timedelta(seconds=5))
    async with TestClient(TestServer(app)) as client:
        answer = await client.get(path)
        body = await answer.json() if answer.status == 200 else await answer.text()
        return answer.status, body


async def test_the_whole_page() -> None:
    status, page = await ask("/debug/keys")
    assert status == 200
    assert (page["leads"], page["count"]) == (True, 2)
    assert page["keys"] == [
        {
            "namespace": "speech",
            "name": "llama",
            "state": "later",
            "dueInSeconds": 12.3,
            "failures": 2,
            "lastPass": {"result": "retry", "seconds": 0.124, "endedSecondsAgo": 5.0, "error": "no answer"},
            "lastDecision": {"secondsAgo": 5.0, "actions": 0},
            "lastActions": {
                "secondsAgo": 5.0,
                "actions": ["Delete HorizontalPodAutoscaler llama: spec.autoscaling is gone"],
            },
        },
        {"namespace": "speech", "name": "other", "state": "idle", "failures": 0},
    ]


async def test_one_key_and_one_namespace() -> None:
    running = {OTHER: Place(KeyState.RUNNING, 3, 0)}
    _, page = await ask("/debug/keys?namespace=speech&name=other", places=running)
    assert page["keys"] == [
        {"namespace": "speech", "name": "other", "state": "running", "forSeconds": 3, "failures": 0}
    ]
    _, page = await ask("/debug/keys?namespace=speech")
    assert page["count"] == 2


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [("name=nobody", 404, "no such key"), ("names=llama", 400, "names: not a parameter")],
)
async def test_a_wrong_question_is_answered_with_the_remedy(query: str, status: int, words: str) -> None:
    found, text = await ask(f"/debug/keys?{query}")
    assert found == status
    assert words in text


def test_an_action_in_a_line() -> None:
    snapshot = settled(make_model())
    bare = type(snapshot)(snapshot.key, snapshot.model, (), {}, (), {})
    lines = [describe(action) for action in decided(bare).actions]
    assert lines
    assert all(line.startswith("Apply ") and ": " in line for line in lines)


def test_the_journal_is_bounded() -> None:
    @dataclass
    class Apply:
        kind: str
        why: str

    made = Journal(lambda: NOW)
    made.decided(KEY, [Apply("Service", "x" * 5000)] * 50)
    outcome = made.of(KEY)
    assert outcome is not None
    assert len(outcome.reasons) == REASONS + 1
    assert outcome.reasons[-1] == "and 30 more"
    assert max(map(len, outcome.reasons)) == LONGEST_TEXT
    for number in range(KEYS):
        made.pass_ended(ModelKey("a", str(number)), "done", 0, "")
    assert made.of(KEY) is None
    assert made.of(ModelKey("a", "0")) is not None
