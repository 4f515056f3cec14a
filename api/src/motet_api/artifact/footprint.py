"""What an adapter takes on a pod, in rows of the slots and in bytes. One place for the rule: the engine lays adapters
out by it, the store and the operator count by it.
"""

from typing import Final

from motet_api.artifact.targets import LinearShapes

SMALLEST_ROWS: Final = 8


def slot_rows(rank: int) -> int:
    """Rows that an adapter of this rank takes in every module's stack: the next power of two, at least 8."""
    return max(SMALLEST_ROWS, 1 << (rank - 1).bit_length())


def slot_bytes(rank: int, base: LinearShapes, element_bytes: int) -> int:
    """Bytes of a slot for an adapter of this rank: its rows in the stacks of *every* module of the base that an adapter
    may change, whichever it does change, since a slot is the same rows everywhere.

    `element_bytes`: size of an element in the stacks (the base's on a GPU, 4 on a CPU).
    """
    return slot_rows(rank) * element_bytes * sum(height + width for height, width in base.values())
