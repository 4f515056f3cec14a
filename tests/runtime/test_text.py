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


class SentencePieces:
    """Words that begin with a space, which decoding drops from the beginning of the text, as many tokenizers do."""

    WORDS = ("where", " is", " my", " parcel")

    def decode(self, token_ids: Sequence[int], **_: Any) -> str:
        return "".join(self.WORDS[token] for token in token_ids).removeprefix(" ")


def test_the_space_between_prompt_and_answer_is_kept() -> None:
    stream = TextStream(SentencePieces(), context=(0, 1))
    assert [stream.push(token) for token in (2, 3)] == [" my", " parcel"]
    assert stream.text == " my parcel"
    assert TextStream(SentencePieces()).push(2) == "my"


def test_bytes_that_are_no_character_are_shown_and_hold_nothing_back_for_long() -> None:
    stream = TextStream(ByteTokenizer())
    shown = [stream.push(0xFF) for _ in range(40)]
    assert all(shown[index : index + 4] != [""] * 4 for index in range(36))
    assert "".join(shown) + stream.finish() == "\ufffd" * 40
