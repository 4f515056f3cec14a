"""How much of a long prompt fits into a step without making running answers stutter. Imports no torch.

A step of decode rows alone takes so long; a chunk of a prompt beside them adds time by its tokens, and more of it the
further into the prompt it lies, as attention reads all that came before. Both are learned from steps that were run, so
nothing has to be configured for a model or a processor.
"""

from typing import Final

_SHARE: Final = 0.2
"""Weight of the newest step in the averages."""
_MOST_DENIALS: Final = 8
"""Steps, one after the other, in which short prompts may take what a long one would get."""
_STEPS_UNTIL_LOOK: Final = 16
"""Steps with a chunk after which one goes without: as answers grow, their own steps become longer, and what they take
must not be put down to the prompt.
"""


class Pace:
    """Learns from steps; answers with tokens.

    `stretch`: how many times as long as a step of decode rows alone a step with a chunk may be. `span`: the position at
    which attention over the past costs as many operations as the rest of a token.
    """

    def __init__(self, stretch: float, span: float, least: int = 8) -> None:
        self._stretch = stretch
        self._span = span
        self._least = least
        self._decode: float | None = None
        self._unit: float | None = None
        self._mixed = 0
        self._denied = 0

    def tokens(self, start: int, beside: int = 0) -> int:
        """Tokens of a prompt, from position `start` on, for a step that has decode rows as well.

        `beside`: tokens of short prompts that are in the step already. Where they take all the time that there is, the
        long prompt waits, but not for ever. Now and then it gets none, to see what the answers take alone.
        """
        if self._decode is None or self._unit is None:
            return self._least * 4
        if self._mixed >= _STEPS_UNTIL_LOOK:
            return 0
        room = (self._stretch - 1) * self._decode / self._unit - beside
        tokens = int(room / self._weight(start))
        if beside and tokens < self._least and self._denied < _MOST_DENIALS:
            return 0
        return max(self._least, tokens)

    def give(self, tokens: int) -> None:
        """So many tokens the long prompts that there are got beside answers, in one step."""
        self._denied = 0 if tokens else self._denied + 1

    def observe(self, seconds: float, decode_rows: int, chunks: list[tuple[int, int]]) -> None:
        """A step took so long; `chunks` are (start, count) of its prompts' parts."""
        if seconds <= 0:
            return  # a clock that stood still says nothing
        self._mixed = self._mixed + 1 if chunks and decode_rows and self._mixed < _STEPS_UNTIL_LOOK else 0
        work = sum(count * self._weight(start + count / 2) for start, count in chunks)
        if not chunks and decode_rows:
            # Beside a long prompt they are rare, so each weighs more.
            self._decode = _averaged(self._decode, seconds, 0.5)
        elif work and (self._decode is not None or not decode_rows):
            rest = seconds - (self._decode or 0.0) * bool(decode_rows)
            self._unit = _averaged(self._unit, max(rest, seconds * 0.05) / work)

    def _weight(self, position: float) -> float:
        return 1.0 + position / self._span


def _averaged(average: float | None, newest: float, share: float = _SHARE) -> float:
    return newest if average is None else average + share * (newest - average)
