"""The engine without its thread: a base, its adapters and a scheduler, run step by step in the test's own time."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motet_api.dtypes import DType
from motet_api.identity import AdapterId, Digest
from motet_runtime.engine.pace import Pace
from motet_runtime.engine.plan import Failed, Outcome, Plan, SlotLoad
from motet_runtime.engine.scheduler import Budgets, Scheduler
from motet_runtime.engine.sequence import Adapter, RowFailure, SampledToken, SamplingParams, Sequence
from motet_runtime.engine.thread import EngineThread
from motet_runtime.settings import EngineOptions

if TYPE_CHECKING:
    from motet_runtime.adapters.library import AdapterLibrary
    from motet_runtime.engine.load_model import LoadedModel
    from motet_runtime.generation import Generator

Compute = Callable[[Plan], Mapping[int, SampledToken | RowFailure]]
EOS = 99


def adapter(name: str, *, rank: int = 8, invocation: Iterable[int] = (), labels: int = 0) -> Adapter:
    """An adapter version that has no weights."""
    return Adapter(AdapterId(name), Digest(f"sha256:{name}"), rank, tuple(invocation), labels)


def sequence(
    number: int, prompt: int | Iterable[int], new_tokens: int = 4, adapter: Adapter | None = None, **params: Any
) -> Sequence:
    """A sequence; of a prompt's length alone a prompt is made that shares no block with another number's."""
    tokens = tuple(range(1000 * number, 1000 * number + prompt)) if isinstance(prompt, int) else tuple(prompt)
    acts_from = adapter.acts_from(tokens) if adapter else 0
    assert acts_from is not None, "the prompt lacks the adapter's invocation"
    sampling = SamplingParams(max_new_tokens=new_tokens, **params)
    return Sequence(number, tokens, sampling, adapter, acts_from=acts_from)


def budgets(**changes: int) -> Budgets:
    """Ample budgets, but for what a test is about."""
    ample = {"max_batch_size": 8, "max_step_tokens": 64, "blocks": 64, "block_size": 4, "slots": 8, "rows": 64}
    return Budgets(**{**ample, **changes})


def ones(plan: Plan) -> dict[int, SampledToken | RowFailure]:
    """Token 1 for whoever samples: a model that costs nothing."""
    return {chunk.sequence.id: SampledToken(1) for chunk in plan.chunks if chunk.samples}


@dataclass(slots=True)
class Run:
    """A scheduler whose steps are computed by `compute`, and whose adapters arrive `delay` steps after they were asked
    for. Every step checks the budgets and that nothing leaks.
    """

    scheduler: Scheduler
    compute: Compute = ones
    copy: Callable[[SlotLoad], None] = lambda _: None
    delay: int = 0
    seconds: Callable[[Plan], float] = lambda _: 0.01
    steps: int = 0
    loads: list[SlotLoad] = field(default_factory=list)
    failures: list[Failed] = field(default_factory=list)
    finished: list[Sequence] = field(default_factory=list)
    _coming: list[tuple[int, SlotLoad]] = field(default_factory=list)

    def add(self, *sequences: Sequence) -> None:
        """Queue sequences."""
        for one in sequences:
            assert self.scheduler.refusal(one) is None
            self.scheduler.add(one)

    def step(self) -> Plan:
        """One step, with everything that comes after it."""
        scheduler = self.scheduler
        while self._coming and self._coming[0][0] <= self.steps:
            _, load = self._coming.pop(0)
            self.copy(load)
            scheduler.loaded(load.adapter.digest)
        plan = scheduler.schedule()
        self.steps += 1
        self.loads += plan.loads
        self._coming += [(self.steps + self.delay, load) for load in plan.loads]
        self._check(plan)
        if plan.chunks:
            for outcome in scheduler.update(plan, self.compute(plan), self.seconds(plan)):
                self._note(outcome)
        scheduler.check()
        return plan

    def rows(self) -> list[tuple[int, int, int]]:
        """One step, as (sequence, start, count) of each chunk."""
        return [(chunk.sequence.id, chunk.start, chunk.count) for chunk in self.step().chunks]

    def finish(self, limit: int = 10_000) -> None:
        """Steps until all is done; nothing may be left over."""
        while self.scheduler.running or self.scheduler.waiting:
            self.step()
            assert self.steps < limit, "the engine does not come to an end"
        self.check_empty()

    def check_empty(self) -> None:
        """Nothing runs, so nothing is held."""
        scheduler = self.scheduler
        scheduler.check()
        assert (scheduler.running, scheduler.waiting) == (0, 0)
        assert scheduler.pool.held == 0
        assert not scheduler.slots.pinned

    def _note(self, outcome: Outcome) -> None:
        if isinstance(outcome, Failed):
            self.failures.append(outcome)
        elif outcome.finish:
            self.finished.append(outcome.sequence)

    def _check(self, plan: Plan) -> None:
        scheduler, limits = self.scheduler, self.scheduler.budgets
        assert plan.tokens <= limits.max_step_tokens
        assert len({chunk.sequence.id for chunk in plan.chunks}) == len(plan.chunks) <= scheduler.running
        assert scheduler.running <= limits.max_batch_size
        assert len(scheduler.slots) <= limits.slots
        placed = {slot.digest: slot for slot in scheduler.slots}
        for chunk in plan.chunks:
            one, end = chunk.sequence, chunk.start + chunk.count
            assert chunk.count > 0
            assert chunk.start == one.computed
            assert chunk.samples == (end == len(one))
            assert len(one.blocks) * limits.block_size >= end
            if one.adapter:
                slot = placed[one.adapter.digest]
                assert slot.ready and slot.pins and slot.row == one.row
        assert scheduler.pool.held <= limits.blocks


def run(delay: int = 0, eos: Iterable[int] = (), stretch: float = 2.5, **changes: int) -> Run:
    """A run without a model."""
    return Run(Scheduler(budgets(**changes), eos, Pace(stretch, span=1000.0)), delay=delay)


@dataclass(slots=True)
class Engine:
    """A loaded base with registered adapters, as a process has them."""

    loaded: "LoadedModel"
    library: "AdapterLibrary"
    hidden: int
    max_rank: int
    _ids: int = 0

    def register(self, name: str, folder: Path) -> Adapter:
        """Verify and convert an adapter, as the residency has it done."""
        from motet_runtime.adapters.artifact import verify

        shapes = self.loaded.runner.shapes
        verified = verify(folder, None, shapes, hidden=self.hidden, max_rank=self.max_rank)
        return self.library.register(AdapterId(name), verified)

    def sequence(
        self, prompt: Iterable[int], adapter: str | None = None, new_tokens: int = 1, **params: Any
    ) -> Sequence:
        """A sequence of its own number; it does not end before its `new_tokens`."""
        self._ids += 1
        known = self.library.adapters[AdapterId(adapter)] if adapter else None
        return sequence(self._ids, prompt, new_tokens, known, **{"ignore_eos": True, **params})

    def run(self, *, delay: int = 0, stretch: float = 2.5, **changes: int) -> Run:
        """An empty engine; `changes` are budgets below those that the base was loaded with."""
        limits = self.loaded.budgets
        wanted = replace(limits, **changes)
        assert wanted.blocks * wanted.block_size <= limits.blocks * limits.block_size
        assert wanted.block_size == limits.block_size and wanted.rows <= limits.rows
        runner = self.loaded.runner
        scheduler = Scheduler(wanted, runner.eos_ids, Pace(stretch, self.loaded.span))
        return Run(scheduler, runner.run, self._copy, delay)

    @contextmanager
    def generator(self, tokenizer: Path) -> "Iterator[Generator]":
        """What requests come in by, with the engine running in a thread of its own."""
        from motet_runtime.engine.tokenizer import load_tokenizer
        from motet_runtime.generation import Generator

        scheduler, runner = self.run().scheduler, self.loaded.runner
        engine = EngineThread(scheduler, runner, time.monotonic, self._copy, lambda *_: None, lambda: None)
        thread = threading.Thread(target=engine.loop)
        thread.start()
        try:
            yield Generator(engine, load_tokenizer(tokenizer), self.library.adapters, runner.vocabulary)
        finally:
            engine.stop()
            thread.join()

    def _copy(self, load: SlotLoad) -> None:
        weights = self.library.weights(load.adapter.digest)
        head = (weights.head.weight, weights.head.bias) if weights.head else None
        self.loaded.runner.write_adapter(load.adapter.digest, load.row, weights.modules, head)


def load_engine(
    base: Path,
    folder: Path,
    adapters: Mapping[str, Path] | None = None,
    *,
    dtype: DType = DType.FLOAT32,
    max_rank: int = 16,
    blocks: int = 256,
    block_size: int = 16,
    pack: bool = True,
    triton: bool = False,
    **options: int,
) -> Engine:
    """Load a base and register its adapters, whose files are kept in `folder`; `pack` as an engine does in time, and
    compute by the GPU's kernels with `triton`.
    """
    from transformers import AutoConfig

    from motet_runtime.adapters.flat_store import FlatStore
    from motet_runtime.adapters.library import AdapterLibrary
    from motet_runtime.engine.load_model import load_model

    chosen = {"max_batch_size": 16, "max_step_tokens": 512, "adapter_slots": 16, **options}
    sizes = {"kv_bytes": 1 << 62, "adapter_bytes": 1 << 40, "max_rank": max_rank, "block_size": block_size}
    longest = blocks * block_size // chosen["max_batch_size"]
    limits = EngineOptions(**chosen, **sizes, max_tokens=longest)
    loaded = load_model(base, dtype, limits, lambda _: None, triton=triton)
    while pack and loaded.runner.pack_next():
        pass
    library = AdapterLibrary(FlatStore(folder, loaded.runner.dtype), 1 << 30, pin=False)
    hidden = AutoConfig.from_pretrained(base).get_text_config().hidden_size
    engine = Engine(loaded, library, hidden, max_rank)
    for name, path in (adapters or {}).items():
        engine.register(name, path)
    return engine


def answers(run: Run, sequences: Iterable[Sequence]) -> list[list[int]]:
    """Run sequences to their ends; their new tokens."""
    listed = list(sequences)
    run.add(*listed)
    run.finish()
    assert not run.failures, run.failures[0].error
    return [one.output for one in listed]
