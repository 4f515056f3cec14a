r"""Regular expressions over names of modules, matched in bounded time whatever the expression is.

`adapter_config.json` may give target modules, ranks and alphas by expression, and Python's `re` takes exponential time
for some. Invariant: a match takes at most `cost(length of the name)` operations on integers, known before it begins.
There is no backtracking, since only whether there is a match is asked: each part of an expression maps the set of
places where it may begin to the set of places where it may end (`pattern_nodes.py`), greedy or lazy alike.

Served is what people write: characters, classes, groups, alternatives, repetition, `^ $ \b \B`, lookahead. What cannot
be answered so (backreferences, lookbehind, flags, atomic groups, possessive repetition) is refused by name.
"""

import re
from dataclasses import dataclass, field
from typing import Final

from motet_api.artifact.errors import ArtifactError
from motet_api.artifact.pattern_nodes import Ahead, Boundary, Chain, Character, Choice, Edge, Node, Repeat, Subject
from motet_api.reasons import AdapterReason

MAX_PATTERN: Final = 2048
"""Characters of an expression; the longest that tools write (all kinds of layers by all names) have some 500."""
_MAX_DEPTH: Final = 20
_PLAIN: Final = re.compile(r"[\w.-]+", re.ASCII)
_COST_OF_PLAIN: Final = 10
"""Of most names the length or the character before them already tells that they are others."""
_ANY: Final = re.compile(".")
_DOT: Final = re.compile(r"\.")
_WORD: Final = re.compile(r"\w")
_KINDS: Final = "dDsSwW"
_COUNTS: Final = re.compile(r"\{(\d{1,4})?(,?)(\d{1,4})?\}")
_GROUP: Final = re.compile(r"\((?:\?(?:(?P<kind>[:=!])|P<[A-Za-z_]\w{0,63}>)|(?!\?))")
_CLASS: Final = re.compile(r"\[\^?\]?(?:[^\]\\\[]|\\.)*\]")
_AMBIGUOUS: Final = ("--", "&&", "~~", "||")
"""Python warns of these in a class: they may come to mean something else."""


@dataclass(frozen=True, slots=True)
class ModulePattern:
    """A regular expression for names of modules. Equal if its text is."""

    text: str
    _node: Node = field(compare=False, repr=False)
    _plain: bool = field(compare=False, repr=False)
    """Whether it is a name, in which a dot stands for any character. Some tools list every module so."""

    def matches(self, module: str) -> bool:
        """Whether the whole name matches (PEFT's rule for `target_modules` and `exclude_modules`)."""
        subject = Subject(module)
        return bool(self._node.ends(subject, 1) & subject.end)

    def matches_end(self, module: str) -> bool:
        """Whether the name, or what is behind one of its dots, matches (PEFT's rule for ranks and alphas)."""
        if self._plain:
            start = len(module) - len(self.text)
            at_name = start == 0 or (start > 0 and module[start - 1] == ".")
            return at_name and all(map(_same_or_any, self.text, module[start:]))
        subject = Subject(module)
        return bool(self._node.ends(subject, 1 | subject.before(_DOT) << 1) & subject.end)

    def cost(self, length: int) -> int:
        """Most operations of a match against a name of this length."""
        return _COST_OF_PLAIN if self._plain else length + self._node.cost(length)


def _same_or_any(wanted: str, found: str) -> bool:
    return wanted in (".", found)


def module_pattern(setting: str, text: str) -> ModulePattern:
    """Read an expression; `setting` is the field of adapter_config.json that it stands in.

    Raises:
        ArtifactError: it is none, is too long, or holds what is not served.
    """
    shown = text if len(text) <= 100 else text[:100] + "..."
    if len(text) > MAX_PATTERN:
        message = f"{setting}: {shown!r} has more than {MAX_PATTERN} characters: list the modules' names instead"
        raise ArtifactError(AdapterReason.INVALID_CONFIG, f"adapter_config.json: {message}")
    try:
        return ModulePattern(text, _Reader(text).whole(), _PLAIN.fullmatch(text) is not None)
    except _SyntaxError as error:
        message = f"{setting}: {shown!r} is no regular expression that is served: {error}"
        raise ArtifactError(AdapterReason.INVALID_CONFIG, f"adapter_config.json: {message}") from error


class _SyntaxError(Exception):
    """What is wrong with an expression."""


class _Reader:
    """Reads an expression from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def whole(self) -> Node:
        """The whole expression."""
        node = self._choice()
        if self._at < len(self._text):
            raise _SyntaxError(f"unbalanced parenthesis at {self._at}")
        return node

    def _choice(self) -> Node:
        options = [self._chain()]
        while self._takes("|"):
            options.append(self._chain())
        return options[0] if len(options) == 1 else Choice(options)

    def _chain(self) -> Node:
        parts: list[Node] = []
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            parts.append(self._repeated(self._atom()))
        return Chain(parts)

    def _repeated(self, part: Node) -> Node:
        counts = self._counts()
        if counts is None:
            return part
        self._takes("?")
        if self._at < len(self._text) and self._text[self._at] == "+":
            raise _SyntaxError(f"possessive or double repetition at {self._at}")
        if self._counts() is not None:
            raise _SyntaxError(f"double repetition before {self._at}")
        return Repeat(part, *counts)

    def _counts(self) -> tuple[int, int | None] | None:
        """How often what was read last may stand, if anything is said of it."""
        for sign, counts in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._takes(sign):
                return counts
        found = _COUNTS.match(self._text, self._at)
        if not found or found[0] == "{}":
            return None
        self._at = found.end()
        least = int(found[1] or 0)
        most = int(found[3]) if found[3] else None if found[2] else least
        if most is not None and most < least:
            raise _SyntaxError(f"{found[0]} repeats fewer times than it must")
        return least, most

    def _atom(self) -> Node:
        character = self._text[self._at]
        if character == "(":
            return self._group()
        if character in "*+?":
            raise _SyntaxError(f"nothing to repeat at {self._at}")
        if character == "\\":
            return self._escape()
        if character == "[":
            return self._class()
        self._at += 1
        if character in "^$":
            return Edge(at_end=character == "$")
        return Character(_ANY if character == "." else re.compile(re.escape(character)))

    def _group(self) -> Node:
        opened = _GROUP.match(self._text, self._at)
        if not opened:
            raise _SyntaxError(f"a group of a kind that is not served at {self._at}")
        self._at = opened.end()
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise _SyntaxError(f"groups are nested more than {_MAX_DEPTH} deep")
        inner = self._choice()
        self._depth -= 1
        if not self._takes(")"):
            raise _SyntaxError("a parenthesis is not closed")
        return Ahead(inner, absent=opened["kind"] == "!") if opened["kind"] in ("=", "!") else inner

    def _escape(self) -> Node:
        escape = self._text[self._at : self._at + 2]
        self._at += 2
        if escape in (r"\b", r"\B"):
            return Boundary(_WORD, inside=escape == r"\B")
        if escape in (r"\A", r"\Z"):
            return Edge(at_end=escape == r"\Z")
        if len(escape) < 2 or (escape[1].isalnum() and escape[1] not in _KINDS):
            raise _SyntaxError(f"{escape} is not served")
        return Character(re.compile(escape))

    def _class(self) -> Node:
        found = _CLASS.match(self._text, self._at)
        if not found or any(sign in found[0] for sign in _AMBIGUOUS):
            raise _SyntaxError(f"a class of characters at {self._at} is not closed, or holds [ or a doubled sign")
        self._at = found.end()
        try:
            return Character(re.compile(found[0]))
        except re.error as error:
            raise _SyntaxError(str(error)) from error

    def _takes(self, sign: str) -> bool:
        taken = self._text.startswith(sign, self._at)
        self._at += taken
        return taken
