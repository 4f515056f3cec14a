"""What may be deleted. Pure.

Invariant: nothing before the references have arrived once since the start, nothing that they name, nothing that was
used or came within the grace period. An artifact goes with all that is known of it; a blob goes when no artifact has it
any more, unless a job or a reader is at it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from motet_api.identity import Digest


@dataclass(frozen=True, slots=True)
class Held:
    """An artifact: its blobs, and when it was asked for or read last."""

    digest: Digest
    blobs: frozenset[str]
    used_at: float


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob: its bytes, when it came, and whether a job or a reader needs it."""

    size: int
    came_at: float
    in_use: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What to delete, and why."""

    artifacts: tuple[Digest, ...]
    blobs: tuple[str, ...]
    reason: str


def plan(
    artifacts: Iterable[Held],
    blobs: Mapping[str, Blob],
    references: frozenset[Digest] | None,
    now: float,
    *,
    grace: float,
    keep: float,
    missing: int = 0,
) -> Plan:
    """What to delete now.

    Args:
        references: every digest that is named; None as long as nobody has said.
        grace: seconds that everything stays.
        keep: seconds that an artifact stays that nobody names, if there is room.
        missing: bytes that are needed at once; the artifacts used longest ago go first, and no more than needed.
    """
    if references is None:
        return Plan((), (), "the references have not arrived yet")
    artifacts = list(artifacts)
    owners = Counter(name for held in artifacts for name in held.blobs)
    going = {name for name in blobs if not owners[name] and _may_go(blobs[name], now, grace)}
    freed = sum(blobs[name].size for name in going)
    gone = []
    for held in sorted(artifacts, key=lambda held: held.used_at):
        idle = now - held.used_at
        if held.digest in references or idle < grace or (freed >= missing and idle < keep):
            continue
        gone.append(held.digest)
        owners.subtract(held.blobs)
        for name in held.blobs:
            if not owners[name] and name in blobs and _may_go(blobs[name], now, grace):
                going.add(name)
                freed += blobs[name].size
    reason = f"{missing} bytes are missing" if missing else "unused for long"
    return Plan(tuple(gone), tuple(sorted(going)), reason)


def _may_go(blob: Blob, now: float, grace: float) -> bool:
    return not blob.in_use and now - blob.came_at >= grace
