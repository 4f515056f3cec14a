"""Reads the machine code out of a pod's error, in either of the two shapes."""

import json

from motet_api.errors import ErrorCode


def error_code(body: bytes) -> ErrorCode | None:
    """The code, or None if the body is not one of our errors."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(parsed, dict):
        return None
    detail = parsed.get("error")
    code = detail.get("code") if isinstance(detail, dict) else parsed.get("code")
    try:
        return ErrorCode(code) if isinstance(code, str) else None
    except ValueError:
        return None
