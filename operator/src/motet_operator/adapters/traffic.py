"""Which split is in effect: it moves to what spec asks for once that can be served, and never to a guess. Pure.

    of the versions with a weight                    the split in effect
    -----------------------------                    -------------------
    all resident                                     as spec says
    a pod is silent, or none runs                    stays as it was
    some resident, the others failed for good        as spec says, without those that failed
    some failed in a way that time may heal          stays as it was; without those that failed if it was empty
    one with a share failed, but not on every pod    stays as it was: others serve it, or may
    some loading                                     stays as it was
    none resident                                    stays as it was

"Stays as it was" keeps a version that spec does not have any more, as long as status still has it: it is still held.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from motet_api.loraadapter import TrafficTarget
from motet_operator.adapters.residency import Standing

WHOLE: Final = 100_000
"""Weights of a step's split are of about this many parts; a share is rounded to a thousandth of a percent."""

Targets = Sequence[TrafficTarget]


@dataclass(frozen=True, slots=True)
class Split:
    """The split in effect. `note` says what of spec is not in it, and why; empty if it is what spec asks for."""

    targets: tuple[TrafficTarget, ...]
    note: str = ""


def effective_split(
    wanted: Targets,
    previous: Targets,
    standings: Mapping[str, Standing],
) -> Split:
    """The split in effect, from what is true of each version that spec or status has (`standings`, by name)."""
    asked = tuple(target for target in wanted if target.weight > 0)
    kept = tuple(target for target in previous if target.version in standings)
    of = {target.version: standings[target.version] for target in asked}
    if all(found.resident for found in of.values()):
        return Split(asked)
    if any(found.uncertain for found in of.values()):
        return Split(kept, "the split stays as it was while it is unknown what the pods hold")
    serving = tuple(target for target in asked if of[target.version].resident)
    failed = sorted(version for version, found in of.items() if found.failed)
    loading = sorted(version for version, found in of.items() if not found.resident and not found.failed)
    may_heal = any(found.failed and not found.final for found in of.values())
    in_effect = {target.version for target in kept if target.weight > 0}
    partly = any(version in in_effect and of[version].failed_on < of[version].pods for version in failed)
    if loading or not serving or (may_heal and kept) or partly:
        waiting_for = ", ".join(loading or failed)
        return Split(kept, f"the split stays as it was until {waiting_for} is resident")
    return Split(serving, f"the share of {', '.join(failed)} goes to the versions that are resident")


def same_split(one: Targets, other: Targets) -> bool:
    """Whether two splits give every version the same share, to a thousandth of a percent, however it is written."""
    first, second = shares(one), shares(other)
    return all(
        abs(first.get(name, Fraction(0)) - second.get(name, Fraction(0))) <= Fraction(2, WHOLE)
        for name in first.keys() | second.keys()
    )


def shares(split: Targets) -> dict[str, Fraction]:
    """Each version's share of the whole; versions without any are left out."""
    total = sum(target.weight for target in split)
    return {target.version: Fraction(target.weight, total) for target in split if target.weight > 0}


def summary(targets: Targets) -> str:
    """In percent, for kubectl's column: `v1=90 v2=10`."""
    total = sum(target.weight for target in targets) or 1
    return " ".join(f"{target.version}={round(100 * target.weight / total, 1):g}" for target in targets)
