"""Bodies: limits, what is refused, and that what was resolved is what is sent."""

import json
from typing import Any

import pytest
from starlette.types import Message

from motet_api.errors import ErrorCode
from motet_gateway.bodies import BodyBudget, parse_body, render_body, text_field
from motet_gateway.errors import GatewayError, RequestRefusedError


class Client:
    """Sends messages in order."""

    def __init__(self, *messages: Message) -> None:
        self._messages = list(messages)

    async def receive(self) -> Message:
        return self._messages.pop(0)


def piece(body: bytes, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


async def test_a_body_comes_in_pieces_and_counts_until_it_is_freed() -> None:
    budget = BodyBudget(max_body_bytes=10, max_held_bytes=100)
    body = await budget.read(Client(piece(b"abc", more=True), piece(b"de")).receive)
    assert (body, budget.held) == (b"abcde", 5)
    budget.free(5)
    assert budget.held == 0


async def test_a_client_that_leaves_is_not_an_error() -> None:
    budget = BodyBudget(max_body_bytes=10, max_held_bytes=100)
    assert await budget.read(Client(piece(b"abc", more=True), {"type": "http.disconnect"}).receive) is None
    assert budget.held == 0


@pytest.mark.parametrize(
    ("limits", "code", "status"),
    [((4, 100), ErrorCode.INVALID_REQUEST, 413), ((10, 4), ErrorCode.OVERLOADED, None)],
)
async def test_limits(limits: tuple[int, int], code: ErrorCode, status: int | None) -> None:
    budget = BodyBudget(*limits)
    with pytest.raises(GatewayError) as caught:
        await budget.read(Client(piece(b"abc", more=True), piece(b"de")).receive)
    assert (caught.value.code, caught.value.status, budget.held) == (code, status, 0)


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'"text"', b"\xff", b"[" * 100_000])
def test_what_is_not_an_object_is_refused(body: bytes) -> None:
    with pytest.raises(RequestRefusedError) as caught:
        parse_body(body)
    assert caught.value.code == ErrorCode.INVALID_REQUEST


def test_a_name_given_twice_is_sent_once() -> None:
    body = parse_body(b'{"model": "good", "model": "other"}')
    assert render_body(body) == b'{"model":"other"}'


def test_text_stays_as_it_is() -> None:
    assert json.loads(render_body({"prompt": "Привет \u2028 😀"})) == {"prompt": "Привет \u2028 😀"}
    assert "Привет".encode() in render_body({"prompt": "Привет"})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800"])
def test_what_json_cannot_say_is_refused(value: Any) -> None:
    with pytest.raises(RequestRefusedError):
        render_body({"x": value})


def test_text_fields() -> None:
    assert text_field({"a": "x"}, "a") == "x"
    assert text_field({"a": None}, "a") == text_field({}, "a") == ""
    with pytest.raises(RequestRefusedError):
        text_field({"a": 7}, "a")
