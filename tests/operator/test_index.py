"""The index: by ModelDeployment, never back in time, and healed of what a watch has missed."""

from typing import Any

import pytest

from motet_operator.keys import Kind, ModelKey
from motet_operator.kube.index import Index
from tests.operator.factories import KEY, MODEL, NAMESPACE, raw_adapter, raw_child, raw_model


def at(raw: dict[str, Any], version: int, uid: str | None = None) -> dict[str, Any]:
    """The object at another resource version."""
    metadata = raw["metadata"] | {"resourceVersion": str(version)} | ({"uid": uid} if uid else {})
    return raw | {"metadata": metadata}


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        (Kind.MODEL_DEPLOYMENT, raw_model()),
        (Kind.LORA_ADAPTER, raw_adapter()),
        (Kind.SERVICE, raw_child(Kind.SERVICE)),
        (Kind.POD, raw_child(Kind.POD, name="llama-x")),
    ],
)
def test_an_object_wakes_its_model(kind: Kind, raw: dict[str, Any]) -> None:
    index = Index()
    assert index.put(kind, raw) == {KEY}
    assert list(index.of_model(KEY, kind)) == [raw["metadata"]["name"]]
    assert list(index.models()) == [KEY]
    assert index.remove(kind, raw) == {KEY}
    assert index.of_model(KEY, kind) == {}
    assert list(index.models()) == []


def test_an_object_without_a_model_wakes_nobody() -> None:
    raw = raw_child(Kind.POD)
    raw["metadata"]["labels"] = {}
    assert Index().put(Kind.POD, raw) == set()
    assert Index().remove(Kind.POD, raw) == set()


def test_older_states_are_not_taken() -> None:
    index = Index()
    index.put(Kind.MODEL_DEPLOYMENT, at(raw_model(generation=2), 20))
    assert index.put(Kind.MODEL_DEPLOYMENT, at(raw_model(generation=1), 19)) == set()
    assert index.put(Kind.MODEL_DEPLOYMENT, at(raw_model(generation=2), 20)) == set()
    assert index.put(Kind.MODEL_DEPLOYMENT, at(raw_model(generation=3), 21)) == {KEY}


def test_an_object_made_anew_takes_the_place_whatever_its_version() -> None:
    index = Index()
    index.put(Kind.MODEL_DEPLOYMENT, at(raw_model(), 20, "old"))
    assert index.put(Kind.MODEL_DEPLOYMENT, at(raw_model(), 5, "new")) == {KEY}
    assert index.remove(Kind.MODEL_DEPLOYMENT, at(raw_model(), 21, "old")) == set(), "a late farewell"
    assert MODEL in index.of_model(KEY, Kind.MODEL_DEPLOYMENT)


def test_a_child_that_changes_its_label_wakes_both() -> None:
    index = Index()
    raw = raw_child(Kind.DEPLOYMENT)
    index.put(Kind.DEPLOYMENT, raw)
    moved = at(raw, 11)
    moved["metadata"] = moved["metadata"] | {"labels": {"motet.dev/model-deployment": "other"}}
    assert index.put(Kind.DEPLOYMENT, moved) == {KEY, ModelKey(NAMESPACE, "other")}


def test_what_vanished_unseen_is_forgotten_and_nothing_else() -> None:
    index = Index()
    for name in ("gone", "there", "changed"):
        index.put(Kind.LORA_ADAPTER, raw_adapter(name))
    before = index.snapshot(Kind.LORA_ADAPTER)
    index.put(Kind.LORA_ADAPTER, at(raw_adapter("changed"), 30))
    index.put(Kind.LORA_ADAPTER, at(raw_adapter("new"), 31))
    assert index.forget_vanished(Kind.LORA_ADAPTER, before, [(NAMESPACE, "there")]) == {KEY}
    assert list(index.of_model(KEY, Kind.LORA_ADAPTER)) == ["changed", "new", "there"]


def test_a_pod_on_its_way_out_is_not_counted() -> None:
    index = Index()
    index.put(Kind.POD, raw_child(Kind.POD, name="llama-x"))
    leaving = at(raw_child(Kind.POD, name="llama-x", deletionTimestamp="2026-11-24T10:00:00Z"), 12)
    assert index.put(Kind.POD, leaving) == {KEY}
    assert index.of_model(KEY, Kind.POD) == {}
