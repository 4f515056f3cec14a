"""Report: write each status once, and only if it says something new; post an Event for what has turned."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from motet_api.loraadapter import LoraAdapterStatus, RolloutStatus
from motet_api.modeldeployment import ModelDeploymentStatus
from motet_api.names import API_VERSION, FIELD_MANAGER
from motet_api.objects import Condition, ConditionStatus, ObjectMeta
from motet_api.reasons import AdapterReason, ConditionType, Reason
from motet_operator.conditions import find, same
from motet_operator.errors import NotFoundError, OperatorError
from motet_operator.keys import Kind, ModelKey
from motet_operator.kube.index import Index
from motet_operator.passes.decide import Decision
from motet_operator.passes.patience import Patience
from motet_operator.snapshot import Snapshot

log = logging.getLogger(__name__)

Status = ModelDeploymentStatus | LoraAdapterStatus
Change = tuple[Kind, ObjectMeta, Status | None, Status]

_STEPS: Final = frozenset(
    {
        *(Reason.PROGRESSING, Reason.NO_PODS, Reason.NOT_CONFIGURED, Reason.FETCHING, Reason.WAITING, Reason.BAKING),
        *(Reason.PAUSED, Reason.BASE_UNKNOWN, AdapterReason.LOADING, AdapterReason.DRAINING),
    }
)
"""Reasons that are steps on the way and no failures."""
_QUIET: Final = _STEPS | {Reason.PODS_UNAVAILABLE, Reason.POD_UNREACHABLE}
"""Reasons that are worth an Event only if something that was true ceases to be: every start goes through them."""
_ECHOES: Final = frozenset({ConditionType.RECONCILING, ConditionType.STALLED})
"""Conditions for machines, that say once more what Ready says."""
_STAGES: Final = frozenset({ConditionType.RESOLVED, ConditionType.VERIFIED, ConditionType.COMPATIBLE})
"""Conditions of a version that are worth an Event only when they fail: every version passes them on its way."""
_LONGEST_NOTE: Final = 1024
_WRITES_AT_ONCE: Final = 8


class StatusWriter(Protocol):
    """Writes statuses and Events."""

    async def apply_status(self, kind: Kind, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Write a status; returns the object.

        Raises: NotFoundError, ConflictError, UnavailableError, RefusedError.
        """
        ...

    async def create_event(self, namespace: str, event: Mapping[str, Any]) -> None:
        """Post an Event. Raises: UnavailableError, RefusedError."""
        ...


@dataclass(frozen=True, slots=True)
class Turn:
    """A condition that has changed."""

    condition: Condition
    warning: bool


@dataclass(frozen=True, slots=True)
class Reported:
    """How many statuses were written, and how many are to be written later if they are still so."""

    written: int
    held_back: int


class Reporter:
    """Writes what a decision says, where it differs from what the objects say."""

    def __init__(
        self,
        writer: StatusWriter,
        index: Index,
        wake: Callable[[ModelKey], None] = lambda key: None,
        patience: Patience | None = None,
    ) -> None:
        """`wake` is told of models beside the pass's own on which an adapter has versions whose status changed.

        Without `patience` every step is written.
        """
        self._writer = writer
        self._index = index
        self._wake = wake
        self._patience = patience

    async def report(self, snapshot: Snapshot, decision: Decision, now: datetime) -> Reported:
        """Write the statuses; what fails keeps none of the others back.

        Raises: ConflictError (an object is not what the snapshot has any more), UnavailableError, RefusedError.
        """
        at_once = asyncio.Semaphore(_WRITES_AT_ONCE)

        async def write(kind: Kind, meta: ObjectMeta, old: Status | None, new: Status) -> None:
            async with at_once:
                for key in await self._write(kind, meta, old, new, now) - {snapshot.key}:
                    self._wake(key)

        changes = list(_changes(snapshot, decision))
        writes = [write(*change) for change in changes if not self._holds_back(change)]
        for result in await asyncio.gather(*writes, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
        return Reported(len(writes), len(changes) - len(writes))

    def _holds_back(self, change: Change) -> bool:
        _, meta, old, new = change
        if self._patience is None or not isinstance(new, LoraAdapterStatus):
            return False
        return self._patience.holds_back(meta.uid, old if isinstance(old, LoraAdapterStatus) else None, new)

    async def _write(
        self, kind: Kind, meta: ObjectMeta, old: Status | None, new: Status, now: datetime
    ) -> set[ModelKey]:
        """Returns the models that should look at it.

        A status is made from the one before it. So it is written over that one and no other: whoever was behind, as a
        new leader's watches are at first, hears of it as a conflict, and decides anew once it has caught up.
        """
        seen = {
            "name": meta.name,
            "namespace": meta.namespace,
            "uid": meta.uid,
            "resourceVersion": meta.resource_version,
        }
        manifest = {"apiVersion": API_VERSION, "kind": kind.value, "metadata": seen, "status": new.to_wire()}
        try:
            raw = await self._writer.apply_status(kind, manifest)
        except NotFoundError:
            return set()
        touched = self._index.put(kind, raw)
        for number, turn in enumerate(turns(old, new)):
            event = make_event(kind, meta, turn, now, number)
            try:
                await self._writer.create_event(meta.namespace, event)
            except OperatorError as error:
                # The condition says the same, and it stays: a lost Event is not worth another pass.
                log.warning("%s/%s: an Event was lost: %s", meta.namespace, meta.name, error)
        return touched


def _changes(snapshot: Snapshot, decision: Decision) -> Iterator[Change]:
    """Every status that says something new: whose it is, the old one, the new one."""
    model, status = snapshot.model, decision.model_status
    if model is not None and status is not None and not (model.status and says_the_same(model.status, status)):
        yield Kind.MODEL_DEPLOYMENT, model.meta, model.status, status
    for adapter in snapshot.adapters:
        new = (decision.adapter_statuses or {}).get(adapter.name)
        if new is not None and not (adapter.status and says_the_same(adapter.status, new)):
            yield Kind.LORA_ADAPTER, adapter.meta, adapter.status, new


def says_the_same(old: Status, new: Status) -> bool:
    """Whether two statuses differ in nothing but the time at which conditions turned, and their order."""
    if old == new:
        return True
    return _untimed(old) == _untimed(new) and all(
        same(before, after) for before, after in zip(_conditions(old), _conditions(new), strict=True)
    )


def turns(old: Status | None, new: Status) -> Iterator[Turn]:
    """What is worth an Event: conditions that became true, ceased to be, or name another failure.

    One failure shows in several conditions of a version; it is told once, by the first of them that says so.
    An object that becomes ready says so once, for all that has become true with it.
    """
    ready = _became_ready(old, new)
    before = {(label, entry.type): entry for label, entries in _labelled(old) for entry in entries}
    for label, entries in _labelled(new):
        kept = [entry for entry in entries if _unturned(before.get((label, entry.type)), entry)]
        failures = {entry.reason for entry in kept if label and entry.status is ConditionStatus.FALSE}
        for entry in entries:
            last = before.get((label, entry.type))
            if entry.type in _ECHOES or entry in kept:
                continue
            if entry.type == ConditionType.ROLLED_OUT:
                # Told by rollout_turns.
                continue
            true = entry.status is ConditionStatus.TRUE
            was_true = last is not None and last.status is ConditionStatus.TRUE
            if label and (entry.status is ConditionStatus.UNKNOWN or (true and entry.type in _STAGES)):
                # Said once, by the object's own Ready condition, or by the version's Resident.
                continue
            if not true and entry.reason in failures:
                continue
            if true and ready and (label or entry.type != ConditionType.READY):
                continue
            if true or was_true or entry.reason not in _QUIET:
                failures.add(entry.reason)
                named = entry.model_copy(update={"type": f"{label}{entry.type}"})
                yield Turn(named, warning=not true and entry.reason not in _STEPS)
    yield from _rollout_turns(old, new)


def _unturned(last: Condition | None, entry: Condition) -> bool:
    return last is not None and (last.status, last.reason) == (entry.status, entry.reason)


def _rollout_turns(old: Status | None, new: Status) -> Iterator[Turn]:
    """Each step of a rollout once it is in effect, and its end, good or bad."""
    if not isinstance(new, LoraAdapterStatus) or new.rollout is None:
        return
    before = old if isinstance(old, LoraAdapterStatus) else LoraAdapterStatus()
    entry, last = find(new.conditions, ConditionType.ROLLED_OUT), find(before.conditions, ConditionType.ROLLED_OUT)
    if entry is None or entry.reason == Reason.WAITING:
        return
    where = _whereabouts(entry, new.rollout)
    if last is None or before.rollout is None or where != _whereabouts(last, before.rollout):
        yield Turn(entry, warning=entry.reason in {Reason.ROLLED_BACK, Reason.ABORTED})


def _whereabouts(entry: Condition, rollout: RolloutStatus) -> tuple[str, str, str, int]:
    return entry.status, entry.reason, rollout.key, rollout.step


def _became_ready(old: Status | None, new: Status) -> bool:
    before, after = (find(status.conditions, ConditionType.READY) if status else None for status in (old, new))
    return bool(after and after.status is ConditionStatus.TRUE and not (before and before.status is after.status))


def make_event(kind: Kind, meta: ObjectMeta, turn: Turn, now: datetime, number: int) -> dict[str, Any]:
    """An Event about a condition. `number` tells apart those of one moment."""
    entry = turn.condition
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{meta.name}.{int(now.timestamp() * 1000):x}{number:02x}", "namespace": meta.namespace},
        "eventTime": now.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "type": "Warning" if turn.warning else "Normal",
        "reason": entry.reason,
        "action": "Reconcile",
        "note": f"{entry.type} is {entry.status}: {entry.message}"[:_LONGEST_NOTE],
        "reportingController": f"motet.dev/{FIELD_MANAGER}",
        "reportingInstance": FIELD_MANAGER,
        "regarding": {
            "apiVersion": API_VERSION,
            "kind": kind.value,
            "name": meta.name,
            "namespace": meta.namespace,
            "uid": meta.uid,
        },
    }


def _untimed(status: Status) -> dict[str, Any]:
    """Everything but the conditions."""
    wire = status.to_wire()
    wire.pop("conditions", None)
    for version in wire.get("versions", []):
        version.pop("conditions", None)
    return wire


def _conditions(status: Status) -> list[Sequence[Condition]]:
    return [entries for _, entries in _labelled(status)]


def _labelled(status: Status | None) -> list[tuple[str, Sequence[Condition]]]:
    """All sets of conditions in a status: the object's own, and each version's under its name."""
    if status is None:
        return []
    own: list[tuple[str, Sequence[Condition]]] = [("", status.conditions)]
    versions = status.versions if isinstance(status, LoraAdapterStatus) else []
    return own + [(f"{version.name}: ", version.conditions) for version in versions]
