"""From token ids to text, as they come: whole characters only, and stop strings found across token borders."""

from collections.abc import Sequence
from typing import Any, Final, Protocol

_REPLACEMENT: Final = "\ufffd"
_LONGEST_CHARACTER: Final = 4
"""Tokens that one character can be spread over: UTF-8 has at most four bytes. More are no character, and are shown."""
_CONTEXT_TOKENS: Final = 6
"""Enough to make the window begin before any character that the prompt's last token may be part of."""


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that is used here."""

    def decode(self, token_ids: Sequence[int], **kwargs: Any) -> str:
        """Text of token ids."""
        ...


class TextStream:
    """The text of one answer while it grows.

    A token may hold part of a character, and its text may depend on the tokens before it; so each piece is the
    difference of decoding a short window with and without the new tokens, held back while it ends in an incomplete
    character. The window begins with the end of the prompt, `context`: many tokenizers drop a space that would begin
    the text, but here it is in the middle.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = (), context: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._ids = list(context[-_CONTEXT_TOKENS:])
        self._window = 0
        self._decoded = len(self._ids)
        self.text = ""
        self.stopped_at: int | None = None
        """Where in `text` the stop string begins, once one was found."""

    def push(self, token: int) -> str:
        """Take in a token; returns the text that is now certain. Sets `stopped_at` when a stop string is complete."""
        self._ids.append(token)
        before = self._decode(self._ids[self._window : self._decoded])
        now = self._decode(self._ids[self._window :])
        if now.endswith(_REPLACEMENT) and len(self._ids) - self._decoded < _LONGEST_CHARACTER:
            return ""
        piece = now[len(before) :]
        self._window, self._decoded = self._decoded, len(self._ids)
        self._append(piece)
        return piece

    def finish(self) -> str:
        """The text still held back when the answer ends."""
        before = self._decode(self._ids[self._window : self._decoded])
        piece = self._decode(self._ids[self._window :])[len(before) :]
        self._window = self._decoded = len(self._ids)
        self._append(piece)
        return piece

    @property
    def emittable(self) -> int:
        """How much of `text` can be shown without showing the beginning of a stop string."""
        if self.stopped_at is not None:
            return self.stopped_at
        held = 0
        for stop in self._stop:
            for length in range(min(len(stop) - 1, len(self.text)), held, -1):
                if self.text.endswith(stop[:length]):
                    held = length
                    break
        return len(self.text) - held

    def _append(self, piece: str) -> None:
        searched = len(self.text)
        self.text += piece
        for stop in self._stop:
            at = self.text.find(stop, max(0, searched - len(stop) + 1))
            if at >= 0 and (self.stopped_at is None or at < self.stopped_at):
                self.stopped_at = at

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
