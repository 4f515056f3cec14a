"""Logs: one JSON object a line, with the object that a pass is about."""

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from motet_operator.json_logs import about, configure_logging
from motet_operator.keys import ModelKey
from motet_operator.operate import log_fields

log = logging.getLogger("motet_operator.test")


@pytest.fixture(autouse=True)
def root_as_before() -> Iterator[None]:
    root, kopf = logging.getLogger(), logging.getLogger("kopf")
    handlers, level, kopf_level = list(root.handlers), root.level, kopf.level
    # `force` closes what was there: the test framework's own handlers are kept out of its reach.
    root.handlers.clear()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    kopf.setLevel(kopf_level)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


async def test_a_line_of_a_pass_says_what_it_is_about(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json")

    async def inner() -> None:
        log.info("deep %s", "down")

    with about(log_fields(ModelKey("speech", "llama"))):
        log.warning("applying", extra={"child": "Service"})
        await asyncio.create_task(inner())
    log.info("outside")
    first, second, third = lines(capsys)
    key = {"kind": "ModelDeployment", "namespace": "speech", "name": "llama"}
    assert first.items() >= (key | {"level": "WARNING", "message": "applying", "child": "Service"}).items()
    assert first["logger"] == "motet_operator.test"
    assert first["time"].endswith("+00:00")
    assert second.items() >= (key | {"message": "deep down"}).items()
    assert set(third) == {"time", "level", "logger", "message"}


def test_text_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "text")
    log.debug("unseen")
    log.error("seen")
    assert capsys.readouterr().err.endswith("ERROR motet_operator.test seen\n")


def test_what_libraries_chatter_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json")
    logging.getLogger("kopf.objects").info("Handler succeeded.")
    assert lines(capsys) == []
