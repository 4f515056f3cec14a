"""How much of a long prompt fits into a step without making running answers stutter. Imports no torch.

A step of decode rows alone takes so long; a chunk of a prompt beside them adds time by its tokens, and more of it the
further into the prompt it lies, as attention reads all that came before. Both are learned from steps that were run, so
nothing has to be configured for a model or a processor.
"""

from typing import Final

_SHARE: Final = 0.2
"""Weight of the newest step in the averages."""


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

    def tokens(self, start: int) -> int:
        """Tokens of a prompt, from position `start` on, for a step that has decode rows as well."""
        if self._decode is None or self._unit is None:
            return self._least * 4
        seconds = (self._stretch - 1) * self._decode
        return max(self._least, int(seconds / (self._unit * self._weight(start))))

    def observe(self, seconds: float, decode_rows: int, chunks: list[tuple[int, int]]) -> None:
        """A step took so long; `chunks` are (start, count) of its prompts' parts."""
        if seconds <= 0:
            return  # a clock that stood still says nothing
        work = sum(count * self._weight(start + count / 2) for start, count in chunks)
        if not chunks and decode_rows:
            self._decode = _averaged(self._decode, seconds)
        elif work and (self._decode is not None or not decode_rows):
            rest = seconds - (self._decode or 0.0) * bool(decode_rows)
            self._unit = _averaged(self._unit, max(rest, seconds * 0.05) / work)

    def _weight(self, position: float) -> float:
        return 1.0 + position / self._span


def _averaged(average: float | None, newest: float) -> float:
    return newest if average is None else average + _SHARE * (newest - average)
