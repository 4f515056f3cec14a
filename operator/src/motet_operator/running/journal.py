"""What the last pass over each key decided and how it ended, for people who ask why. Bounded; lost at a restart."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from motet_operator.keys import ModelKey

KEYS: Final = 4096
REASONS: Final = 20
LONGEST_TEXT: Final = 300


@dataclass(frozen=True, slots=True)
class Outcome:
    """The last pass over a key that ended; the last decision about it, which may be of a pass still under way; and the
    last one that did anything."""

    result: str = ""
    """As `PassObserver` says it; empty before the first pass has ended."""
    ended: datetime | None = None
    seconds: float = 0.0
    error: str = ""
    decided: datetime | None = None
    actions: int = 0
    """Of the last decision: how many there were."""
    acted: datetime | None = None
    reasons: tuple[str, ...] = ()
    """What the last decision that had any actions did, and why."""


class Journal:
    """Outcomes by key; those that have been silent for longest give way."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._outcomes: OrderedDict[ModelKey, Outcome] = OrderedDict()

    def of(self, key: ModelKey) -> Outcome | None:
        """The outcome of one key."""
        return self._outcomes.get(key)

    def decided(self, key: ModelKey, actions: Sequence[Any]) -> None:
        """A decision was made; `actions` are those of `decide`, whatever kinds there are."""
        old = self._outcomes.get(key, Outcome())
        new = replace(old, decided=self._now(), actions=len(actions))
        if actions:
            reasons = [_cut(describe(action)) for action in actions[:REASONS]]
            if len(actions) > REASONS:
                reasons.append(f"and {len(actions) - REASONS} more")
            new = replace(new, acted=new.decided, reasons=tuple(reasons))
        self._put(key, new)

    def pass_ended(self, key: ModelKey, result: str, seconds: float, error: str) -> None:
        """A pass ended."""
        old = self._outcomes.get(key, Outcome())
        self._put(key, replace(old, result=result, ended=self._now(), seconds=seconds, error=_cut(error)))

    def _put(self, key: ModelKey, outcome: Outcome) -> None:
        self._outcomes[key] = outcome
        self._outcomes.move_to_end(key)
        while len(self._outcomes) > KEYS:
            self._outcomes.popitem(last=False)


def describe(action: Any) -> str:
    """An action in a line: what it is called, what it is about, and why."""
    subjects = [str(value) for field in ("kind", "name", "pod") if (value := getattr(action, field, ""))]
    why = getattr(action, "why", "")
    return " ".join([type(action).__name__, *subjects]) + (f": {why}" if why else "")


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"
