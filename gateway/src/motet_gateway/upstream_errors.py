"""Reads the machine code and the message out of a pod's error, in either of the two shapes."""

import json
from typing import Any

from motet_api.errors import ErrorCode


def error_code(body: bytes) -> ErrorCode | None:
    """The code, or None if the body is not one of our errors."""
    code = _parts(body).get("code")
    try:
        return ErrorCode(code) if isinstance(code, str) else None
    except ValueError:
        return None


def error_message(body: bytes) -> str:
    """The message, or that there is none."""
    parts = _parts(body)
    message = parts.get("message") or parts.get("error")
    return message if isinstance(message, str) else "it gives no reason"


def _parts(body: bytes) -> dict[str, Any]:
    """The object that has the code and the message: the OpenAI API has it below `error`, LoRAX has it at the top."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    detail = parsed.get("error") if isinstance(parsed, dict) else None
    found = detail if isinstance(detail, dict) else parsed
    return found if isinstance(found, dict) else {}
