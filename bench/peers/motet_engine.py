"""Motet's engine, in its loop, without the HTTP server and the thread around it."""

import itertools
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.peers.protocol import Adapters, Options, Prompts, Stages, run

STEP_TOKENS = 512
KV_BYTES = 3 << 30
HOST_BYTES = 2 << 30
_STEPS_TO_WARM, _STEPS_ALONE = 80, 336


class MotetEngine:
    """A base, and adapters by name."""

    def __init__(self, options: Options, stages: Stages) -> None:
        from motet_runtime.engine.lean_imports import without_collection

        with without_collection():
            self._load(options, stages)
        self._ids = itertools.count(1)
        for name, path in options.adapters.items():
            self.load(name, str(path))
        stages.done("adapters")

    def _load(self, options: Options, stages: Stages) -> None:
        import tempfile

        import torch

        from motet_api.dtypes import DType
        from motet_runtime.adapters.flat_store import FlatStore
        from motet_runtime.adapters.library import AdapterLibrary
        from motet_runtime.engine.load_model import load_model
        from motet_runtime.engine.pace import Pace
        from motet_runtime.engine.scheduler import Scheduler
        from motet_runtime.settings import EngineOptions

        torch.set_num_threads(1)
        stages.done("imports")
        budgets = EngineOptions(
            max_batch_size=max(64, options.slots),
            max_step_tokens=STEP_TOKENS,
            max_rank=options.max_rank,
            adapter_slots=options.slots,
            kv_bytes=KV_BYTES,
        )
        loaded = load_model(options.model, DType.FLOAT32, budgets, lambda _: None)
        stages.done("model")
        self._runner = loaded.runner
        self._max_rank = options.max_rank
        self._scheduler = Scheduler(loaded.budgets, (), Pace(2.2, loaded.span))
        self._scratch = tempfile.TemporaryDirectory(prefix="motet-bench-")
        store = FlatStore(Path(self._scratch.name), loaded.runner.dtype)
        self._library = AdapterLibrary(store, host_bytes=HOST_BYTES, pin=False)

    def ready(self) -> None:
        """All that a server does within its first steps."""
        while self._runner.pack_next():
            pass

    def batch(self, prompts: Prompts, adapters: Adapters, new_tokens: int) -> dict[str, Any]:
        """All requests arrive at once."""
        sequences = [
            self._sequence(prompt, name, max_new_tokens=new_tokens)
            for prompt, name in zip(prompts, adapters, strict=True)
        ]
        self._run(sequences)
        return {"tokens": [sequence.output for sequence in sequences]}

    def score(self, prompts: Prompts, adapters: Adapters, token_ids: list[int]) -> dict[str, Any]:
        """Log-probabilities of tokens, in the pass that reads the prompt."""
        return {"scores": self._scores(zip(prompts, adapters, strict=True), token_ids)}

    def panel(
        self, transcript: list[int], adapters: list[str], suffixes: Prompts, token_ids: list[int]
    ) -> dict[str, Any]:
        """Every adapter's scores of the same input with its own suffix."""
        prompts = [[*transcript, *suffix] for suffix in suffixes]
        return {"scores": self._scores(zip(prompts, adapters, strict=True), token_ids)}

    def load(self, name: str, path: str) -> None:
        """From its folder into its slot: read, verified, converted to its file, copied."""
        from motet_api.identity import AdapterId
        from motet_runtime.adapters.artifact import verify

        runner = self._runner
        verified = verify(Path(path), None, runner.shapes, hidden=runner.hidden_size, max_rank=self._max_rank)
        self._scheduler.prefetch(self._library.register(AdapterId(name), verified))
        self._copy(self._scheduler.schedule().loads)

    def evict(self, name: str) -> None:
        """Out of its slot and out of host memory."""
        from motet_api.identity import AdapterId

        digest = self._library.remove(AdapterId(name))
        if digest is not None:
            self._scheduler.forget_adapter(digest)

    def gaps(self, prompts: Prompts, adapters: Adapters, new_tokens: int, long_prompt: list[int]) -> dict[str, Any]:
        """CPU seconds between tokens of short requests: for a while without, then while a long prompt is read.

        Short requests run all the time: where one ends, the next begins with the next of `prompts`; `adapters` are as
        many as run at once. As the machine is shared, and nothing but the engine runs in this process, CPU time is what
        an idle core takes.
        """
        waiting = itertools.cycle(prompts)
        late = self._sequence(long_prompt, None, max_new_tokens=1)
        running: dict[int, float | None] = {}
        sequences: dict[int, Any] = {late.id: late}

        def begin(name: str | None, tokens: int = new_tokens) -> None:
            sequence = self._sequence(next(waiting), name, max_new_tokens=tokens)
            self._scheduler.add(sequence)
            running[sequence.id], sequences[sequence.id] = None, sequence

        for place, name in enumerate(adapters):
            # Staggered, so that they do not all end at once, ever after.
            begin(name, new_tokens * (place + 1) // len(adapters))
        gaps: dict[bool, list[float]] = {False: [], True: []}
        steps = 0
        while not late.output:
            steps += 1
            if steps == _STEPS_ALONE:
                self._scheduler.add(late)
            outcomes = self._step()
            now = time.process_time()
            for outcome in outcomes:
                sequence = outcome.sequence
                if sequence is late:
                    continue
                last = running[sequence.id]
                if last is not None and steps > _STEPS_TO_WARM:
                    gaps[steps >= _STEPS_ALONE].append(now - last)
                running[sequence.id] = now
                if outcome.finish:
                    del running[sequence.id], sequences[sequence.id]
                    begin(sequence.adapter and sequence.adapter.id)
        for sequence in sequences.values():
            self._scheduler.remove(sequence)
        return {"alone": gaps[False], "beside": gaps[True], "steps": steps}

    def slot_counts(self) -> tuple[int, int, int]:
        """Copies into slots and evictions so far, and bytes of a row of the stacks."""
        from motet_runtime.engine.lora import LoraStacks

        slots, runner = self._scheduler.slots, self._runner
        row = LoraStacks.bytes_per_row(runner.shapes, runner.dtype, runner.device)
        return slots.loads, slots.evictions, row

    def _scores(self, rows: Iterable[tuple[Sequence[int], str | None]], token_ids: list[int]) -> list[list[float]]:
        sequences = [self._sequence(prompt, name, max_new_tokens=1, scores=tuple(token_ids)) for prompt, name in rows]
        tokens = {outcome.sequence.id: outcome.token for outcome in self._run(sequences)}
        return [list(tokens[sequence.id].scores) for sequence in sequences]

    def _sequence(self, prompt: Sequence[int], name: str | None, **params: Any) -> Any:
        from motet_api.identity import AdapterId
        from motet_runtime.engine.sequence import SamplingParams
        from motet_runtime.engine.sequence import Sequence as Request

        adapter = None if name is None else self._library.adapters[AdapterId(name)]
        acts_from = adapter.acts_from(prompt) if adapter else 0
        if acts_from is None:
            raise RuntimeError(f"the prompt does not invoke {name}")
        sampling = SamplingParams(ignore_eos=True, **params)
        return Request(next(self._ids), tuple(prompt), sampling, adapter, acts_from=acts_from)

    def _run(self, sequences: list[Any]) -> list[Any]:
        for sequence in sequences:
            refusal = self._scheduler.refusal(sequence)
            if refusal:
                raise RuntimeError(refusal)
            self._scheduler.add(sequence)
        outcomes = []
        while self._scheduler.waiting + self._scheduler.running:
            outcomes += self._step()
        return outcomes

    def _step(self) -> list[Any]:
        plan = self._scheduler.schedule()
        self._copy(plan.loads)
        if not plan.chunks:
            return []
        started = time.perf_counter()
        out = self._runner.run(plan)
        outcomes = self._scheduler.update(plan, out, time.perf_counter() - started)
        for outcome in outcomes:
            if not hasattr(outcome, "token"):
                raise RuntimeError(f"a request failed, so the figures would mean nothing: {outcome.error}")
        return outcomes

    def _copy(self, loads: Iterable[Any]) -> None:
        for load in loads:
            digest = load.adapter.digest
            self._runner.write_adapter(digest, load.row, self._library.weights(digest).modules, None)
            self._scheduler.loaded(digest)


if __name__ == "__main__":
    run(MotetEngine)
