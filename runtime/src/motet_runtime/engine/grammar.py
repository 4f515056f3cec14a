"""Answers of a given form: a JSON schema or a regular expression, followed token by token by llguidance.

Compiling (milliseconds; the first time a third of a second, for the tokenizer) is done by the caller's thread, before
the request reaches the engine; a mask (10 to 100 microseconds in the median) is computed in the engine's. llguidance is
imported when the first such request comes: most pods never see one. Imports no torch.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from motet_api.errors import ErrorCode
from motet_runtime.engine.sequence import Constraint
from motet_runtime.errors import RequestError

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

_BLANKS: Final = r"[ \t\r\n]{1,40}"
"""Blanks between JSON's parts: enough to indent, and an end to what a small model would go on with for ever."""

_MAX_LEXER_STATES: Final = 50_000
"""About 100 MB at most for one answer's automaton; a grammar that wants more ends its answer with an error."""


class GrammarKind(StrEnum):
    """What the text of a grammar is."""

    JSON_OBJECT = "json_object"
    """Any JSON object; the text is not read."""
    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    """The whole answer matches; Rust's syntax, so without look-around and back-references."""


@dataclass(frozen=True, slots=True)
class GrammarSpec:
    """The form an answer must have. `field` is what the caller calls it, for messages."""

    kind: GrammarKind
    text: str = ""
    field: str = "response_format"


class GrammarCompiler:
    """Turns grammars into constraints for one model. May be used by several threads.

    `vocabulary_size` is the number of logits, which may be larger than the tokenizer's vocabulary. `eos_ids` are the
    tokens that end an answer of the model, the tokenizer's own if there are none; they are allowed exactly where the
    grammar may end.
    """

    def __init__(self, tokenizer: Any, vocabulary_size: int, eos_ids: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._vocabulary_size = vocabulary_size
        self._eos_ids = list(eos_ids) or [one for one in (tokenizer.eos_token_id,) if one is not None]
        self._lock = threading.Lock()
        self._table: LLTokenizer | None = None

    def compile(self, spec: GrammarSpec) -> Constraint:
        """A constraint at the start of its grammar, for one answer.

        Raises:
            RequestError: the schema or the regular expression is wrong, or uses what is not supported; or no grammar
                can be followed with this model's tokenizer.
        """
        from llguidance import LLMatcher, LLParserLimits

        table = self._tokens(spec)
        limits = LLParserLimits(max_lexer_states=_MAX_LEXER_STATES, verbose_errors=False)
        matcher = LLMatcher(table, _grammar(spec), log_level=0, limits=limits)
        if matcher.is_error():
            raise _refusal(spec, matcher.get_error())
        return _Matcher(matcher)

    def _tokens(self, spec: GrammarSpec) -> "LLTokenizer":
        """The bytes of each token, read once."""
        with self._lock:
            if self._table is None:
                if not self._eos_ids:
                    raise _unsupported(spec, "it has no token that ends an answer")
                from llguidance.hf import from_tokenizer

                try:
                    size = max(self._vocabulary_size, 1 + max(self._tokenizer.get_vocab().values()))
                    self._table = from_tokenizer(self._tokenizer, n_vocab=size, eos_token=self._eos_ids)
                except ValueError as error:
                    raise _unsupported(spec, str(error)) from error
            return self._table


class _Matcher:
    """An llguidance matcher as the engine's `Constraint`."""

    def __init__(self, matcher: "LLMatcher") -> None:
        self._matcher = matcher

    def allowed(self) -> Sequence[int]:
        mask = memoryview(self._matcher.compute_bitmask()).cast("I")
        # A matcher that has failed says that the answer may end: it would pass for a complete one.
        return [0] * len(mask) if self._matcher.is_error() else mask

    def advance(self, token: int) -> None:
        self._matcher.consume_token(token)


def _grammar(spec: GrammarSpec) -> str:
    """A grammar in llguidance's own form; not checked yet, but for JSON's syntax.

    Raises:
        RequestError: a schema that is no JSON object, or a regular expression that ends in half an escape.
    """
    from llguidance import LLMatcher

    if spec.kind is GrammarKind.REGEX:
        # llguidance drops such a backslash and would follow another expression.
        if (len(spec.text) - len(spec.text.rstrip("\\"))) % 2:
            raise _refusal(spec, "incomplete escape sequence at its end")
        return LLMatcher.grammar_from_regex(spec.text)
    schema = '{"type": "object"}' if spec.kind is GrammarKind.JSON_OBJECT else spec.text
    try:
        return LLMatcher.grammar_from_json_schema(schema, defaults={"whitespace_pattern": _BLANKS})
    except ValueError as error:
        raise _refusal(spec, str(error)) from error


def _refusal(spec: GrammarSpec, reason: str) -> RequestError:
    """llguidance quotes the grammar around its reason, which is on a line of its own or the first one."""
    lines = [line.strip() for line in reason.splitlines()] or [reason]
    short = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[0])
    what, remedy = (
        ("regular expression", "use Rust's syntax without look-around or back-references")
        if spec.kind is GrammarKind.REGEX
        else ("JSON schema", "correct the schema or leave out what is not supported")
    )
    message = f"{spec.field}: the {what} cannot be followed: {short}; {remedy}"
    return RequestError(ErrorCode.INVALID_REQUEST, message, spec.field)


def _unsupported(spec: GrammarSpec, reason: str) -> RequestError:
    message = f"{spec.field} cannot be used with this model's tokenizer: {reason}; leave it out"
    return RequestError(ErrorCode.INVALID_REQUEST, message, spec.field)
