"""The engine's thread, and the one bridge between it and asyncio.

Invariant: the scheduler, the forward pass and every sequence are touched by the engine's thread only. Commands go in
through one queue; results come out through each submission's callback, which must only hand over
(`call_soon_threadsafe`). So the event loop never waits for a step, and a step never waits for the event loop. Adapters
are copied into their slots by threads of their own, beside the running batch: into rows that no running sequence uses.
"""

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, Protocol

from motet_api.identity import Digest
from motet_runtime.engine.plan import Failed, Outcome, Plan, SlotLoad
from motet_runtime.engine.scheduler import Scheduler
from motet_runtime.engine.sequence import RowFailure, SampledToken, Sequence

_log = logging.getLogger(__name__)
_IDLE_SECONDS: Final = 0.5
_COPIERS: Final = 4
"""Adapters that may be copied at once: one whose source has to be asked again must not hold up the others."""


class Runner(Protocol):
    """What the loop needs of a model."""

    def run(self, plan: Plan) -> dict[int, SampledToken | RowFailure]:
        """Compute one step; by sequence id what was sampled, or why a row could not be computed."""
        ...

    def forget_adapter(self, digest: Digest) -> None:
        """Free what is kept of an adapter beside its slot."""
        ...

    def pack_next(self) -> bool:
        """Do a little of what makes later steps faster; False if there is nothing left to do."""
        ...


OnOutcome = Callable[[Outcome], None]


@dataclass(slots=True)
class EngineGauges:
    """Numbers that other threads may read at any time."""

    running: int = 0
    waiting: int = 0
    last_beat: float = 0.0
    failed: bool = False
    kv_blocks: int = 0
    kv_blocks_held: int = 0
    prefix_tokens: int = 0
    prefix_hit_tokens: int = 0
    preemptions: int = 0
    slots_used: int = 0
    slot_loads: int = 0
    slot_evictions: int = 0


@dataclass(slots=True, eq=False)
class EngineThread:
    """Runs the loop. `clock` is monotonic seconds; `copy_adapter` puts an adapter's weights into its slot, in a thread
    of its own; `observe_step` is told each step's seconds and tokens, `observe_failure` each step that failed whole.
    """

    scheduler: Scheduler
    runner: Runner
    clock: Callable[[], float]
    copy_adapter: Callable[[SlotLoad], None]
    observe_step: Callable[[float, int], None]
    observe_failure: Callable[[], None]
    gauges: EngineGauges = field(default_factory=EngineGauges)
    _commands: queue.SimpleQueue[Callable[[], None]] = field(default_factory=queue.SimpleQueue)
    _listeners: dict[int, tuple[Sequence, OnOutcome]] = field(default_factory=dict)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _copying: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(_COPIERS, thread_name_prefix="adapters")
    )

    def submit(self, sequences: list[Sequence], on_outcome: OnOutcome) -> None:
        """Queue sequences, together (from any thread)."""

        def add() -> None:
            for sequence in sequences:
                refusal = self.scheduler.refusal(sequence)
                if refusal:
                    on_outcome(Failed(sequence, refusal))
                    continue
                self._listeners[sequence.id] = (sequence, on_outcome)
                self.scheduler.add(sequence)

        self._commands.put(add)

    def cancel(self, sequence: Sequence) -> None:
        """End a sequence and free what it holds (from any thread); harmless if it has ended."""
        self._commands.put(lambda: self._end(sequence))

    def forget_adapter(self, digest: Digest) -> None:
        """Drop what is kept for an adapter that nobody uses any more (in the engine's thread, by `call`)."""
        self.scheduler.forget_adapter(digest)
        if digest not in self.scheduler.slots:
            self.runner.forget_adapter(digest)

    def call(self, command: Callable[[], None]) -> None:
        """Run something between two steps, in the engine's thread (from any thread)."""
        self._commands.put(command)

    def stop(self) -> None:
        """End the loop after the current step (from any thread)."""
        self._stopping.set()
        self._commands.put(lambda: None)

    def loop(self) -> None:
        """The loop; returns after `stop`, or when the engine can no longer be trusted."""
        try:
            self._turn()
        except Exception:  # the thread's edge: not one request's fault, so all are told, and liveness fails at once
            _log.exception("the engine's loop failed: the process has to be restarted")
            self.observe_failure()
            self.gauges.failed = True
            self._stopping.set()
            for sequence, listener in self._listeners.values():
                listener(Failed(sequence, "the engine failed: the pod is restarting"))
        self._copying.shutdown(wait=False, cancel_futures=True)

    def _turn(self) -> None:
        idle = True
        while not self._stopping.is_set():
            self._take_commands(idle)
            self.gauges.last_beat = self.clock()
            plan = self.scheduler.schedule()
            for load in plan.loads:
                self._copying.submit(self._copy, load)
            if plan.chunks:
                self._step(plan)
            self._note_load()
            # With nothing to compute and nothing to prepare, whatever changes that comes as a command.
            idle = not self.runner.pack_next() and not plan.chunks

    def _note_load(self) -> None:
        scheduler, gauges = self.scheduler, self.gauges
        pool, slots = scheduler.pool, scheduler.slots
        gauges.running, gauges.waiting = scheduler.running, scheduler.waiting
        gauges.kv_blocks, gauges.kv_blocks_held = pool.count, pool.held
        gauges.prefix_tokens, gauges.prefix_hit_tokens = pool.looked_up_tokens, pool.hit_tokens
        gauges.preemptions = scheduler.preemptions
        gauges.slots_used, gauges.slot_loads, gauges.slot_evictions = len(slots), slots.loads, slots.evictions

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
        seconds = self.clock() - started
        outcomes = self.scheduler.update(plan, out, seconds)
        self._note_load()
        for outcome in outcomes:
            self._tell(outcome)
            if isinstance(outcome, Failed) or outcome.finish:
                self._end(outcome.sequence)
        self.observe_step(seconds, plan.tokens)

    def _copy(self, load: SlotLoad) -> None:
        """In the copying thread."""
        digest = load.adapter.digest
        try:
            self.copy_adapter(load)
        except Exception as error:  # the thread's edge: the waiting requests are told, all others go on
            _log.exception("adapter %s could not be copied into its slot", load.adapter.id)
            message = f"adapter {load.adapter.id} could not be loaded: {type(error).__name__}: {error}"
            self._commands.put(lambda: self._fail_waiting(self.scheduler.load_failed(digest, message)))
            return
        self._commands.put(lambda: self._loaded(digest))

    def _loaded(self, digest: Digest) -> None:
        self.scheduler.loaded(digest)
        if digest not in self.scheduler.slots:
            self.runner.forget_adapter(digest)  # it was removed while it was copied

    def _fail_waiting(self, failures: list[Failed]) -> None:
        for failed in failures:
            self._tell(failed)
            self._listeners.pop(failed.sequence.id, None)

    def _take_commands(self, idle: bool) -> None:
        try:
            self._obey(self._commands.get(block=idle, timeout=_IDLE_SECONDS))
            while True:
                self._obey(self._commands.get_nowait())
        except queue.Empty:
            return

    def _obey(self, command: Callable[[], None]) -> None:
        try:
            command()
        except Exception:  # a failing command must not end the loop, and with it everybody's requests
            _log.exception("a command to the engine failed")
            self.observe_failure()

    def _tell(self, outcome: Outcome) -> None:
        _, listener = self._listeners.get(outcome.sequence.id, (None, None))
        if listener:
            listener(outcome)

    def _end(self, sequence: Sequence) -> None:
        self.scheduler.remove(sequence)
        self._listeners.pop(sequence.id, None)
