"""A call that goes to another version: what of it changes, and what does not."""

import json
from typing import Any

import pytest

from motet_api.errors import ErrorCode
from motet_gateway.calls import Call
from motet_gateway.errors import UnavailableError
from motet_gateway.resolve import Route
from tests.gateway.factories import adapter, model

CHURN = adapter(versions=("v1", "v2"))
V1, V2 = (Route(model(), CHURN, version, by_split=True) for version in ("v1", "v2"))
OPENAI: dict[str, Any] = {"model": "churn@v1", "prompt": "x", "stream": True, "stream_options": {"include_usage": True}}
LORAX: dict[str, Any] = {"inputs": "x", "parameters": {"adapter_id": "churn@v1", "seed": 1}, "stream": True}


def call(body: dict[str, Any], path: str, route: Route = V1, again: Route | None = V2) -> Call:
    def resolve() -> Route:
        if again is None:
            raise UnavailableError(ErrorCode.ADAPTER_NOT_READY, "gone", 1)
        return again

    return Call("POST", path, route, json.dumps(body).encode(), {"accept": "x"}, resolve)


def test_the_version_is_named_where_each_api_has_it() -> None:
    moved = call(OPENAI, "/v1/completions").moved()
    assert moved is not None
    assert (moved.route, moved.headers, json.loads(moved.body)) == (V2, {"accept": "x"}, OPENAI | {"model": "churn@v2"})
    moved = call(LORAX, "/generate").moved()
    assert moved is not None
    assert json.loads(moved.body) == LORAX | {"parameters": {"adapter_id": "churn@v2", "seed": 1}}


@pytest.mark.parametrize(
    ("route", "again"), [(V1, V1), (V1, None), (Route(model(), CHURN, "v1"), V2), (Route(model()), V2)]
)
def test_a_call_that_stays_where_it_is(route: Route, again: Route | None) -> None:
    assert call(OPENAI, "/v1/completions", route, again).moved() is None


@pytest.mark.parametrize(
    ("body", "path", "found", "found_path"),
    [
        (OPENAI, "/v1/completions", {"model": "churn@v2", "prompt": "x", "stream": False}, "/v1/completions"),
        ({"model": "churn@v1", "input": "x"}, "/v1/classify", {"model": "churn@v2", "input": "x"}, "/v1/classify"),
        (
            LORAX,
            "/generate_stream",
            {"inputs": "x", "parameters": {"adapter_id": "churn@v2", "seed": 1}, "stream": False},
            "/generate",
        ),
        ({"inputs": "x"}, "/", {"inputs": "x", "parameters": {"adapter_id": "churn@v2"}}, "/"),
    ],
)
def test_a_copy_asks_for_an_answer_in_one_piece(
    body: dict[str, Any], path: str, found: dict[str, Any], found_path: str
) -> None:
    copy = call(body, path).copy_to(V2)
    assert (copy.path, json.loads(copy.body), copy.moved()) == (found_path, found, None)
