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

During a rollout a failed version's share goes to versions that gain nothing by the rollout; where none is left it stays
as it was. A rollout that is taken back waits for nobody as long as anything of the split before it serves:

    of that split's versions that have not failed    the split in effect
    ---------------------------------------------    -------------------
    some have a share in effect                      as it was before the rollout, of these
    else some are resident on some pod               as it was before the rollout, of these
    none, beside those that gained                   by the table above
"""

from collections.abc import Collection, Mapping, Sequence
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
    gaining: Collection[str] = (),
    *,
    back: bool = False,
) -> Split:
    """The split in effect, from what is true of each version that spec or status has (`standings`, by name).

    Args:
        gaining: versions that get more by a rollout, and must not get more than `wanted` gives them.
        back: whether `wanted` is the split before a rollout whose gains are to end at once.
    """
    asked = tuple(target for target in wanted if target.weight > 0)
    kept = tuple(target for target in previous if target.version in standings)
    of = {target.version: standings[target.version] for target in asked}
    if all(found.resident for found in of.values()):
        return Split(asked)
    in_effect = {target.version for target in kept if target.weight > 0}
    if back and (left := _handed_on(asked, _at_hand(of, in_effect, gaining), gaining)):
        absent = ", ".join(sorted(of.keys() - {target.version for target in left}))
        return Split(left, f"the share of {absent} goes to the others until it is resident" if absent else "")
    if any(found.uncertain for found in of.values()):
        return Split(kept, "the split stays as it was while it is unknown what the pods hold")
    serving = _handed_on(asked, [version for version, found in of.items() if found.resident], gaining)
    failed = sorted(version for version, found in of.items() if found.failed)
    loading = sorted(version for version, found in of.items() if not found.resident and not found.failed)
    may_heal = any(found.failed and not found.final for found in of.values())
    partly = any(version in in_effect and of[version].failed_on < of[version].pods for version in failed)
    if loading or not serving or (may_heal and kept) or partly:
        waiting_for = ", ".join(loading or failed)
        return Split(kept, f"the split stays as it was until {waiting_for} is resident")
    return Split(serving, f"the share of {', '.join(failed)} goes to the versions that are resident")


def _at_hand(of: Mapping[str, Standing], in_effect: Collection[str], gaining: Collection[str]) -> list[str]:
    """The versions to which a rollout can go back at once."""
    alive = [name for name, found in of.items() if not found.failed or found.failed_on < found.pods]
    serving = [name for name in alive if name in in_effect]
    return serving if set(serving) - set(gaining) else [name for name in alive if of[name].ready_on]


def _handed_on(asked: Targets, left: Collection[str], gaining: Collection[str]) -> tuple[TrafficTarget, ...]:
    """The split with what is left of it: the shares of the others go to versions that gain nothing by a rollout.

    Empty if it would have to go to those that do.
    """
    there = tuple(target for target in asked if target.version in left)
    if len(there) == len(asked) or not any(target.version in gaining for target in there):
        return there
    before = shares(asked)
    takers = {target.version for target in there} - set(gaining)
    if not takers:
        return ()
    free = 1 - sum((before[target.version] for target in there), Fraction(0))
    more = 1 + free / sum((before[name] for name in takers), Fraction(0))
    after = {
        target.version: before[target.version] * (more if target.version in takers else Fraction(1)) for target in there
    }
    return in_parts(after)


def in_parts(split: Mapping[str, Fraction]) -> tuple[TrafficTarget, ...]:
    """Shares as targets, in parts of `WHOLE`."""
    return tuple(TrafficTarget(version=name, weight=round(share * WHOLE)) for name, share in split.items())


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
