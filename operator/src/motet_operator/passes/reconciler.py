"""One pass over one key: observe, decide, act, report.

A pass that finds what the last one found, when nothing was to be done or waited for, ends there: the decision would be
the same. That is what keeps ten thousand adapters at rest from costing anything but the asking of their pods.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, Protocol

from motet_operator import looks
from motet_operator.installation import Installation
from motet_operator.keys import ModelKey
from motet_operator.passes.act import Actor
from motet_operator.passes.decide import Action, decide
from motet_operator.passes.observe import Observer
from motet_operator.passes.patience import STEP_SECONDS
from motet_operator.passes.report import Reporter
from motet_operator.snapshot import Snapshot

_REFUSED_AGAIN_SECONDS: Final = 30.0


class DecisionJournal(Protocol):
    """Takes down what was decided."""

    def decided(self, key: ModelKey, actions: Sequence[Action]) -> None:
        """A decision was made."""
        ...


class Reconciler:
    """Brings one ModelDeployment, with its adapters, a step nearer to what is asked for."""

    def __init__(
        self,
        observer: Observer,
        actor: Actor,
        reporter: Reporter,
        installation: Installation,
        now: Callable[[], datetime],
        journal: DecisionJournal | None = None,
    ) -> None:
        self._observer = observer
        self._actor = actor
        self._reporter = reporter
        self._installation = installation
        self._now = now
        self._journal = journal
        self._settled: dict[ModelKey, Snapshot] = {}
        """What was last seen of keys at rest. Lost at a restart, which costs one decision each."""

    async def reconcile(self, key: ModelKey) -> float | None:
        """One pass; returns the seconds after which to look again. Raises: OperatorError, to be tried again."""
        # 1. Observe: a frozen snapshot.
        snapshot = await self._observer.observe(key)
        if snapshot == self._settled.get(key):
            return looks.STEADY
        self._settled.pop(key, None)
        # 2. Decide: a pure function of the snapshot and the time.
        now = self._now()
        decision = decide(snapshot, now, self._installation)
        if self._journal is not None:
            self._journal.decided(key, decision.actions)
        # 3. Act: pods are told, children applied.
        refused = await self._actor.act(key, decision.actions)
        look_again = decision.look_again
        if refused:
            decision = decide(snapshot, now, self._installation, refused)
            look_again = max(decision.look_again or 0.0, _REFUSED_AGAIN_SECONDS)
        # 4. Report: statuses that say something new, and Events.
        reported = await self._reporter.report(snapshot, decision, now)
        if reported.held_back:
            return STEP_SECONDS if look_again is None else min(look_again, STEP_SECONDS)
        if decision.settled and not refused and not reported.written:
            self._settled[key] = snapshot
        return look_again
