"""Whether two answers to one request agree, and how far apart their label probabilities are. Pure.

| API                     | agree if                                      | probabilities |
|-------------------------|-----------------------------------------------|---------------|
| /v1/classify            | the label of every input is the same          | yes           |
| /v1/completions, chat   | the text of every choice is the same          | no            |
| LoRAX                   | the generated text is the same                | no            |

Text can be compared like this where it is not sampled (temperature 0, do_sample false).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from motet_gateway.engines import documents


@dataclass(frozen=True, slots=True)
class Comparison:
    """`drift` is the mean over inputs and labels of the absolute difference of probabilities, where there are any."""

    agreed: bool
    drift: float | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What is compared of an answer: its texts, or the labels and their probabilities by input."""

    said: tuple[str, ...]
    scores: tuple[Mapping[str, float], ...] = ()


def compare(one: bytes | None, other: bytes | None) -> Comparison | None:
    """The comparison of two answers, streams or not; None if one cannot be read, or they are of different kinds."""
    mine, theirs = read_answer(one), read_answer(other)
    if mine is None or theirs is None or bool(mine.scores) != bool(theirs.scores):
        return None
    return Comparison(mine.said == theirs.said, _drift(mine.scores, theirs.scores))


def read_answer(body: bytes | None) -> Reading | None:
    """What an answer says; None if it says nothing that can be compared."""
    events = [] if body is None else list(documents(body))
    if not events or any(event.get("error") is not None for event in events):
        return None
    try:
        return _read(events)
    except (AttributeError, KeyError, TypeError, ValueError):
        # An answer of a shape that is not known is not comparable; it is passed on to the client all the same.
        return None


def _read(events: list[dict[str, Any]]) -> Reading | None:
    generated = [event["generated_text"] for event in events if isinstance(event.get("generated_text"), str)]
    if generated:
        return Reading((generated[-1],))
    if any("choices" in event for event in events):
        return Reading(_choices(events))
    if isinstance(events[0].get("data"), list):
        rows = events[0]["data"]
        scores = tuple({one["label"]: float(one["score"]) for one in row["labels"]} for row in rows)
        return Reading(tuple(str(row["label"]) for row in rows), scores) if rows else None
    return None


def _choices(events: list[dict[str, Any]]) -> tuple[str, ...]:
    texts: dict[int, str] = {}
    for event in events:
        for choice in event.get("choices", ()):
            part = choice.get("message") or choice.get("delta") or {}
            text = choice.get("text") or part.get("content") or ""
            index = int(choice.get("index", 0))
            texts[index] = texts.get(index, "") + text
    return tuple(texts[index] for index in sorted(texts))


def _drift(one: tuple[Mapping[str, float], ...], other: tuple[Mapping[str, float], ...]) -> float | None:
    if not one or len(one) != len(other):
        return None
    distances = [_distance(mine, theirs) for mine, theirs in zip(one, other, strict=True)]
    mean = sum(distances) / len(distances)
    return mean if math.isfinite(mean) else None


def _distance(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    # A label that one of them does not know has no probability there.
    labels = one.keys() | other.keys()
    return sum(abs(one.get(label, 0.0) - other.get(label, 0.0)) for label in labels) / max(1, len(labels))
