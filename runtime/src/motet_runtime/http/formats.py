"""`response_format` of both APIs as a grammar."""

import json
from typing import Any

from motet_api.errors import ErrorCode
from motet_runtime.engine.grammar import GrammarKind, GrammarSpec
from motet_runtime.errors import RequestError


def grammar_of(response_format: dict[str, Any] | None) -> GrammarSpec | None:
    """The grammar that an answer must follow; None for free text.

    LoRAX has the schema under `schema`, OpenAI under `json_schema.schema`; a regular expression is taken under `regex`.

    Raises:
        RequestError: the type is unknown, or its schema or expression is missing.
    """
    if response_format is None or response_format.get("type") == "text":
        return None
    kind = response_format.get("type")
    nested = response_format.get("json_schema")
    schema = response_format.get("schema") or (nested.get("schema") if isinstance(nested, dict) else None)
    if kind == "regex" and isinstance(response_format.get("regex"), str):
        return GrammarSpec(GrammarKind.REGEX, response_format["regex"])
    if kind in ("json_object", "json_schema") and schema is not None:
        return GrammarSpec(GrammarKind.JSON_SCHEMA, json.dumps(schema))
    if kind == "json_object":
        return GrammarSpec(GrammarKind.JSON_OBJECT)
    message = (
        f"response_format: type {kind!r} with fields {sorted(response_format)} is not understood: give type "
        "json_object, json_schema with json_schema.schema, or regex with regex"
    )
    raise RequestError(ErrorCode.INVALID_REQUEST, message, "response_format")
