"""The parts of an expression, each a map from the places where it may begin to the places where it may end.

A set of places in a name is an integer: bit i stands for the place before character i, bit len(name) for the end.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Subject:
    """A name that is matched against."""

    def __init__(self, name: str) -> None:
        self.end = 1 << len(name)
        self._places: dict[str, int] = {}
        for index, character in enumerate(name):
            self._places[character] = self._places.get(character, 0) | 1 << index
        self._known: dict[str, int] = {}

    def before(self, kind: "re.Pattern[str]") -> int:
        """The places before a character of this kind, an expression for one character."""
        known = self._known.get(kind.pattern)
        if known is None:
            known = sum(places for character, places in self._places.items() if kind.fullmatch(character))
            self._known[kind.pattern] = known
        return known


class Node(Protocol):
    """Part of an expression."""

    def ends(self, subject: Subject, starts: int) -> int:
        """Where it may end if it begins at one of `starts`."""
        ...

    def cost(self, length: int) -> int:
        """Most operations of `ends` for a name of this length."""
        ...


@dataclass(frozen=True, slots=True)
class Character:
    """One character of a kind."""

    kind: "re.Pattern[str]"

    def ends(self, subject: Subject, starts: int) -> int:
        """One further."""
        return (starts & subject.before(self.kind)) << 1

    def cost(self, length: int) -> int:
        """The kind's places are looked up once for each name."""
        return 1


@dataclass(frozen=True, slots=True)
class Edge:
    """`^` or `$`."""

    at_end: bool

    def ends(self, subject: Subject, starts: int) -> int:
        """There, if it begins there."""
        return starts & (subject.end if self.at_end else 1)

    def cost(self, length: int) -> int:
        """One operation."""
        return 1


@dataclass(frozen=True, slots=True)
class Boundary:
    r"""`\b`, or `\B` if `inside`: between a character of a word and another, or not."""

    word: "re.Pattern[str]"
    inside: bool

    def ends(self, subject: Subject, starts: int) -> int:
        """Where it stands."""
        before = subject.before(self.word)
        boundaries = before ^ (before << 1)
        return starts & (~boundaries if self.inside else boundaries)

    def cost(self, length: int) -> int:
        """One operation."""
        return 1


@dataclass(frozen=True, slots=True)
class Chain:
    """One part after the other."""

    parts: Sequence[Node]

    def ends(self, subject: Subject, starts: int) -> int:
        """Each begins where the one before it ends."""
        for part in self.parts:
            if not starts:
                return 0
            starts = part.ends(subject, starts)
        return starts

    def cost(self, length: int) -> int:
        """All of them."""
        return 1 + sum(part.cost(length) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several."""

    options: Sequence[Node]

    def ends(self, subject: Subject, starts: int) -> int:
        """Wherever one of them ends."""
        found = 0
        for option in self.options:
            found |= option.ends(subject, starts)
        return found

    def cost(self, length: int) -> int:
        """All of them."""
        return 1 + sum(option.cost(length) for option in self.options)


@dataclass(frozen=True, slots=True)
class Repeat:
    """A part `least` to `most` times, any number of times if `most` is None."""

    part: Node
    least: int
    most: int | None

    def ends(self, subject: Subject, starts: int) -> int:
        """Beyond `least`, only places that are new are gone on from, so that there are no more rounds than places."""
        for _ in range(self.least):
            starts = self.part.ends(subject, starts)
            if not starts:
                return 0
        found = fresh = starts
        rounds = self.most - self.least if self.most is not None else -1
        while fresh and rounds:
            fresh = self.part.ends(subject, fresh) & ~found
            found |= fresh
            rounds -= 1
        return found

    def cost(self, length: int) -> int:
        """A round for each place, or for each time."""
        rounds = length + 2 if self.most is None else min(self.most - self.least, length + 2)
        return 1 + (self.least + rounds) * (1 + self.part.cost(length))


@dataclass(frozen=True, slots=True)
class Ahead:
    """`(?=...)`, or `(?!...)` if `absent`."""

    part: Node
    absent: bool

    def ends(self, subject: Subject, starts: int) -> int:
        """The places from which the part matches (does not match), each asked by itself."""
        found, rest = 0, starts
        while rest:
            place = rest & -rest
            rest ^= place
            if bool(self.part.ends(subject, place)) is not self.absent:
                found |= place
        return found

    def cost(self, length: int) -> int:
        """The part's, for each place."""
        return (length + 1) * (1 + self.part.cost(length))
