"""Text as it grows: whole characters only, stop strings across token borders, nothing lost."""

from collections.abc import Sequence
from typing import Any

from motet_runtime.engine.text import TextStream


class ByteTokenizer:
    """One token a byte."""

    def decode(self, token_ids: Sequence[int], **_: Any) -> str:
        return bytes(token_ids).decode(errors="replace")


def pieces(text: str, stop: Sequence[str] = ()) -> tuple[list[str], TextStream]:
    stream = TextStream(ByteTokenizer(), stop)
    return [stream.push(byte) for byte in text.encode()] + [stream.finish()], stream


def test_a_character_of_several_tokens_comes_whole() -> None:
    found, stream = pieces("aé€😀z")
    assert "".join(found) == "aé€😀z" == stream.text
    assert all("\ufffd" not in piece for piece in found)


def test_an_incomplete_character_at_the_end_is_shown_as_such() -> None:
    stream = TextStream(ByteTokenizer())
    shown = stream.push(ord("a")) + stream.push(0xE2)
    assert shown == "a"
    assert stream.finish() == "\ufffd"


def test_a_stop_string_is_found_across_tokens_and_its_beginning_is_held_back() -> None:
    stream = TextStream(ByteTokenizer(), ("END",))
    shown = []
    for byte in b"an EN":
        stream.push(byte)
        shown.append(stream.emittable)
    assert shown == [1, 2, 3, 3, 3]
    stream.push(ord("D"))
    assert stream.stopped_at == 3
    assert stream.text[: stream.emittable] == "an "


def test_a_false_beginning_is_released() -> None:
    _, stream = pieces("an EXit", ("END",))
    assert stream.stopped_at is None
    assert stream.emittable == len(stream.text)


def test_the_earliest_of_several_stop_strings_counts() -> None:
    _, stream = pieces("one two", ("two", "ne t"))
    assert stream.stopped_at == 1
