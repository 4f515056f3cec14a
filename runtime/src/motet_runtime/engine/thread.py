"""The engine's thread, and the one bridge between it and asyncio.

Invariant: the model, the scheduler and every sequence are touched by the engine's thread only. Commands go in through
one queue; results come out through each submission's callback, which must only hand over (`call_soon_threadsafe`). So
the event loop never waits for a step, and a step never waits for the event loop.
"""

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from motet_runtime.engine.scheduler import Failed, Plan, Progress, Scheduler
from motet_runtime.engine.sequence import RowFailure, SampledToken, Sequence

_log = logging.getLogger(__name__)
_IDLE_SECONDS = 0.5


class Runner(Protocol):
    """What the loop needs of a model."""

    def run(self, plan: Plan) -> dict[int, SampledToken | RowFailure]:
        """Compute one step; by sequence id what was sampled, or why a row could not be computed."""
        ...

    def forget(self, sequence: Sequence) -> None:
        """Free what is kept for a sequence."""
        ...


Outcome = Progress | Failed
OnOutcome = Callable[[Outcome], None]


@dataclass(slots=True)
class EngineGauges:
    """Numbers that other threads may read at any time."""

    running: int = 0
    waiting: int = 0
    last_beat: float = 0.0


@dataclass(slots=True, eq=False)
class EngineThread:
    """Runs the loop. `clock` is monotonic seconds; `observe_step` is told each step's seconds and tokens, and
    `observe_failure` each step that failed as a whole.
    """

    scheduler: Scheduler
    runner: Runner
    clock: Callable[[], float]
    observe_step: Callable[[float, int], None]
    observe_failure: Callable[[], None]
    gauges: EngineGauges = field(default_factory=EngineGauges)
    _commands: queue.SimpleQueue[Callable[[], None]] = field(default_factory=queue.SimpleQueue)
    _listeners: dict[int, OnOutcome] = field(default_factory=dict)
    _stopping: threading.Event = field(default_factory=threading.Event)

    def submit(self, sequence: Sequence, on_outcome: OnOutcome) -> None:
        """Queue a sequence (from any thread)."""

        def add() -> None:
            self._listeners[sequence.id] = on_outcome
            self.scheduler.add(sequence)

        self._commands.put(add)

    def cancel(self, sequence: Sequence) -> None:
        """End a sequence and free what it holds (from any thread); harmless if it has ended."""
        self._commands.put(lambda: self._end(sequence))

    def call(self, command: Callable[[], None]) -> None:
        """Run something between two steps, in the engine's thread (from any thread)."""
        self._commands.put(command)

    def stop(self) -> None:
        """End the loop after the current step (from any thread)."""
        self._stopping.set()
        self._commands.put(lambda: None)

    def loop(self) -> None:
        """The loop; returns after `stop`."""
        while not self._stopping.is_set():
            self._take_commands()
            self.gauges.last_beat = self.clock()
            plan = self.scheduler.schedule()
            if plan.chunks:
                self._step(plan)
            self._note_load()

    def _note_load(self) -> None:
        self.gauges.running, self.gauges.waiting = self.scheduler.running, self.scheduler.waiting

    def _step(self, plan: Plan) -> None:
        started = self.clock()
        try:
            out = self.runner.run(plan)
        except Exception as error:  # the loop's edge: a failing step must not end the process, nor other requests
            _log.exception("a step over %d sequences failed", len(plan.chunks))
            self.observe_failure()
            for chunk in plan.chunks:
                self._tell(Failed(chunk.sequence, f"{type(error).__name__}: {error}"))
                self._end(chunk.sequence)
            return
        advanced = self.scheduler.update(plan, out)
        self._note_load()
        for outcome in advanced:
            self._tell(outcome)
            if isinstance(outcome, Failed) or outcome.finish:
                self._end(outcome.sequence)
        self.observe_step(self.clock() - started, plan.tokens)

    def _take_commands(self) -> None:
        idle = self.scheduler.running == 0 and self.scheduler.waiting == 0
        try:
            self._commands.get(block=idle, timeout=_IDLE_SECONDS)()
            while True:
                self._commands.get_nowait()()
        except queue.Empty:
            return

    def _tell(self, outcome: Outcome) -> None:
        listener = self._listeners.get(outcome.sequence.id)
        if listener:
            listener(outcome)

    def _end(self, sequence: Sequence) -> None:
        self.scheduler.remove(sequence)
        self._listeners.pop(sequence.id, None)
        self.runner.forget(sequence)
