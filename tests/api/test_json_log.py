"""The form of a log line."""

import json
import logging
import sys
from typing import Any

from motet_api.json_log import ABOUT, JsonFormatter


def line(message: str = "x", *arguments: Any, exc_info: Any = None, **extra: Any) -> dict[str, Any]:
    record = logging.LogRecord("some.logger", logging.INFO, "file.py", 1, message, arguments, exc_info)
    vars(record).update(extra)
    text = JsonFormatter().format(record)
    assert "\n" not in text
    found: dict[str, Any] = json.loads(text)
    return found


def test_the_same_fields_first() -> None:
    found = line("%s is ready", "llama", seconds=1.5)
    assert list(found) == ["time", "level", "logger", "message", "seconds"]
    assert (found["level"], found["logger"], found["message"]) == ("INFO", "some.logger", "llama is ready")


def test_an_object_s_name_is_not_the_logger_s() -> None:
    found = line(**{ABOUT: {"namespace": "speech", "name": "llama"}})
    assert (found["logger"], found["name"], found["namespace"]) == ("some.logger", "llama", "speech")
    assert ABOUT not in found
    assert set(line(**{ABOUT: "no mapping"})) == {"time", "level", "logger", "message"}


def test_a_line_break_and_what_json_does_not_know_stay_in_the_line() -> None:
    assert line("a\nb", path=object)["message"] == "a\nb"


def test_an_error_brings_its_traceback() -> None:
    try:
        raise ValueError("bad")
    except ValueError:
        found = line(exc_info=sys.exc_info())
    assert "ValueError: bad" in found["traceback"]
