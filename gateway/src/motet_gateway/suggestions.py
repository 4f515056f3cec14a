"""What a misspelt name may have meant, for the message of a 404."""

import difflib
from collections.abc import Collection
from itertools import islice
from typing import Final

_LISTED: Final = 10
_COMPARED: Final = 300
"""Comparing a name with ten thousand others would hold up every other request for a tenth of a second."""


def suggest(name: str, names: Collection[str]) -> str:
    """`"; there are a, b"` or `"; did you mean a, b?"` or, when nothing is near, the empty string."""
    if not names:
        return "; there are none"
    if len(names) <= _LISTED:
        return f"; there are {', '.join(sorted(names))}"
    bare = name.rpartition("/")[2].partition("@")[0].lower()
    alike = (other for other in names if other[:2] == bare[:2] or other[-3:] == bare[-3:])
    found = difflib.get_close_matches(bare, list(islice(alike, _COMPARED)), n=5)
    return f"; did you mean {', '.join(found)}?" if found else ""
