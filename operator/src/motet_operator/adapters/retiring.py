"""When a version that has left spec may go. Pure.

Invariant: nothing is unloaded that a request may still need. A version that has left spec serves on until the split has
moved to others; then it retires: it goes when every gateway says that it follows that split and has no request of the
version left. A gateway that does not answer keeps it.

    the version                                                Retiring        stays
    -----------                                                --------        -----
    has a share of the split, or a rollout may return to it    False Waiting   yes
    a gateway is silent, follows another split or is at it     True  Draining  yes
    every gateway follows the split and has none of it         True  Draining  no
    there is no gateway to ask, and no pod holds it            True  Draining  no
    there is no gateway to ask                                 True  Draining  for GRACE
    it retires longest, and status is full                     True  Draining  no
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from motet_api.loraadapter import MOST_VERSIONS, VersionStatus
from motet_api.objects import ConditionStatus
from motet_api.reasons import AdapterReason, ConditionType, Reason
from motet_api.wire import AdapterOutcome
from motet_operator.adapters.residency import Standing
from motet_operator.adapters.traffic import Targets, same_split, shares
from motet_operator.adapters.versions import Version
from motet_operator.conditions import Verdict, find, no, yes

GRACE: Final = timedelta(seconds=10)

Answers = Sequence[AdapterOutcome | None]
"""What each gateway says of an adapter, None for one that is silent."""


@dataclass(frozen=True, slots=True)
class Retirement:
    """Whether a version may go, and what is said of it while it may not."""

    over: bool
    verdict: Verdict


def retirement(
    version: Version,
    needed: Collection[str],
    told: Targets,
    standing: Standing,
    answers: Answers | None,
    now: datetime,
) -> Retirement:
    """How far a version is that has left spec.

    Args:
        needed: versions that the old or the new split, or a rollout, has use for.
        told: the split that gateways were told, by status.
        answers: None where no gateway is known to the installation, or none has been asked.
    """
    if version.name in needed:
        message = "it has left spec.versions and serves until the split has moved to others"
        return Retirement(False, no(Reason.WAITING, message))
    if answers:
        waits = _waits_for(version.name, told, answers)
        return Retirement(not waits, yes(AdapterReason.DRAINING, waits or "no gateway has a request of it"))
    if standing.ready_on == 0 and not standing.uncertain:
        return Retirement(True, yes(AdapterReason.DRAINING, "no pod holds it"))
    message = f"it goes {GRACE.seconds} s after the split has left it"
    return Retirement(_grace_is_over(version, now), yes(AdapterReason.DRAINING, message))


def bounded(versions: Sequence[VersionStatus]) -> list[VersionStatus]:
    """As many as a status can have: a gateway that is silent for long does not keep what has retired longest."""
    retiring = {version.name: since for version in versions if (since := _retires_since(version)) is not None}
    first = sorted(retiring, key=lambda name: retiring[name])
    gone = set(first[: max(len(versions) - MOST_VERSIONS, 0)])
    return [version for version in versions if version.name not in gone]


def _retires_since(version: VersionStatus) -> datetime | None:
    found = find(version.conditions, ConditionType.RETIRING)
    return found.last_transition_time if found is not None and found.status is ConditionStatus.TRUE else None


def _waits_for(name: str, told: Targets, answers: Answers) -> str:
    """What keeps it; without numbers, which would make every request a write of status."""
    for answer in answers:
        if answer is None:
            return "waits for a gateway that does not answer"
        split = answer.following
        # However small: `same_split` takes a share of a thousandth of a percent for none.
        if split is not None and (name in shares(split) or not same_split(split, told)):
            return "waits for a gateway to follow the split in effect"
        if any(seen.version == name and seen.in_flight for seen in answer.versions):
            return "waits for its last requests"
    return ""


def _grace_is_over(version: Version, now: datetime) -> bool:
    since = find(version.recorded.conditions, ConditionType.RETIRING) if version.recorded else None
    if since is None or since.status != "True":
        return False
    # A clock that was set back must not make it stay for ever.
    return not -GRACE < now - since.last_transition_time < GRACE
