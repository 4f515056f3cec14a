"""What can be understood of a document that cannot be understood as a whole. Pure.

A status holds what must not be lost for a word in it that another release has written: the digests that are pinned, the
split in effect. So only what does not make sense is taken out: a field, or, where that must be there, what it is in.
"""

import copy
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from motet_api.objects import KubeModel

ModelT = TypeVar("ModelT", bound=KubeModel)
_ROUNDS: Final = 8
"""Each takes out all that is wrong, and shows what is missing by it; documents are not nested any deeper."""


def salvaged(model: type[ModelT], document: Mapping[str, Any]) -> ModelT | None:
    """The document without what cannot be understood; None if nothing is left that can."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        wrong = _places(error)
    left = copy.deepcopy(document)
    for _ in range(_ROUNDS):
        if () in wrong:
            return None
        # From the end, so that what is taken out of a list does not move what is still to be taken out.
        for place in sorted(wrong, key=_by_number, reverse=True):
            _take_out(left, place)
        try:
            return model.model_validate(left)
        except ValidationError as error:
            wrong = _places(error)
    return None


def _places(error: ValidationError) -> set[tuple[int | str, ...]]:
    """Where to cut: what is wrong, or what lacks something."""
    return {tuple(one["loc"][:-1] if one["type"] == "missing" else one["loc"]) for one in error.errors()}


def _by_number(place: tuple[int | str, ...]) -> list[tuple[int, str]]:
    return [(part, "") if isinstance(part, int) else (0, part) for part in place]


def _take_out(document: Any, place: tuple[int | str, ...]) -> None:
    """It may be gone with what it was in."""
    *way, last = place
    try:
        for part in way:
            document = document[part]
        del document[last]
    except (KeyError, IndexError, TypeError):
        return
