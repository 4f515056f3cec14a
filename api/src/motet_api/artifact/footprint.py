"""What an adapter takes on a pod, in rows of the slots and in bytes below them. One place for the rule: the engine lays
adapters out by it, the store and the operator count by it.
"""

from collections.abc import Iterable
from typing import Final

from motet_api.artifact.targets import TargetModule

SMALLEST_ROWS: Final = 8


def slot_rows(rank: int) -> int:
    """Rows that an adapter of this rank takes in every module's stack: the next power of two, at least 8."""
    return max(SMALLEST_ROWS, 1 << (rank - 1).bit_length())


def held_bytes(targets: Iterable[TargetModule], element_bytes: int) -> int:
    """Bytes of an adapter in a pod's memory or on its disk: its low-rank weights in the base's type.

    A classification head is left out: it is a few thousand numbers beside millions.
    """
    return element_bytes * sum(target.rank * (target.height + target.width) for target in targets)
