"""Which statuses are not worth a write yet: steps on the way, most of which are over within a moment.

A new adapter goes from "no pod runs" over "loading" to ready, often within a second. Written one by one, that is three
writes for each of ten thousand adapters, of which the last one matters. So a step is written once it has lasted.

Nothing hangs on what is remembered here: lost at a restart, it costs a write. What others go by is never held back: a
failure, the split, a rollout, whatever was true and ceases to be, and anything of a version that the adapter store
fetches, as pods are told of those by what is recorded.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from motet_api.loraadapter import LoraAdapterStatus, VersionStatus
from motet_api.objects import Condition, ConditionStatus
from motet_api.reasons import AdapterReason, ConditionType, Reason
from motet_operator.conditions import find

STEP_SECONDS: Final = 1.5
"""For so long a step must have lasted to be written ..."""
LONGEST_SECONDS: Final = 30.0
"""... and this long after the last write one is written however briefly it has lasted."""
_STEPS: Final = frozenset({Reason.NO_PODS, Reason.PROGRESSING, AdapterReason.LOADING})


@dataclass(frozen=True, slots=True)
class _Held:
    said: str
    since: float
    first: float


class Patience:
    """Adapters whose last step has not been written. `clock` is monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._held: dict[str, _Held] = {}

    @property
    def held(self) -> int:
        """How many are held back."""
        return len(self._held)

    def holds_back(self, uid: str, old: LoraAdapterStatus | None, new: LoraAdapterStatus) -> bool:
        """Whether the new status of the object with this uid is not to be written yet. It must be asked again soon."""
        if not is_step(old, new):
            self._held.pop(uid, None)
            return False
        now, said = self._clock(), _said(new)
        self._forget(now)
        held = self._held.get(uid)
        if held is None or held.said != said:
            held = self._held[uid] = _Held(said, now, held.first if held else now)
        if now - held.since < STEP_SECONDS and now - held.first < LONGEST_SECONDS:
            return True
        del self._held[uid]
        return False

    def _forget(self, now: float) -> None:
        """Let go of those that nobody has asked about again: they were deleted meanwhile. The first held come first."""
        while self._held and now - next(iter(self._held.values())).first > 2 * LONGEST_SECONDS:
            del self._held[next(iter(self._held))]


def is_step(old: LoraAdapterStatus | None, new: LoraAdapterStatus) -> bool:
    """Whether the new status says no more than how far an adapter is that was not ready before."""
    before = old or LoraAdapterStatus()
    ready, was = find(new.conditions, ConditionType.READY), find(before.conditions, ConditionType.READY)
    return (
        ready is not None
        and ready.reason in _STEPS
        and not (was is not None and was.status is ConditionStatus.TRUE)
        and (before.traffic, before.mirror, before.rollout) == (new.traffic, new.mirror, new.rollout)
        and all(_on_its_way(version) for version in new.versions)
    )


def _on_its_way(version: VersionStatus) -> bool:
    local = version.source is not None and not version.source.remote
    return local and all(_fine(condition) for condition in version.conditions)


def _fine(condition: Condition) -> bool:
    if condition.type == ConditionType.RETIRING:
        return False
    return condition.status is ConditionStatus.TRUE or condition.reason in _STEPS


def _said(status: LoraAdapterStatus) -> str:
    ready = find(status.conditions, ConditionType.READY)
    return ready.message if ready else ""
