"""Which tokens of which sequences the next step computes, and who holds what. Imports no torch.

Invariant: a step never exceeds a budget: `max_step_tokens` tokens, `max_batch_size` sequences, the KV blocks, the
adapter slots. A running answer gets its one token before any prompt gets a chunk, and a long prompt beside it only as
much as `pace` allows. Whoever was admitted first is preempted last, so somebody always gets done; what a preempted
sequence had computed is computed again. Adapters take turns (`flows.py`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from motet_api.identity import Digest
from motet_runtime.engine.blocks import BlockKey, BlockPool, PrefixKeys
from motet_runtime.engine.flows import Flow, Flows
from motet_runtime.engine.pace import Pace
from motet_runtime.engine.plan import Chunk, Failed, Outcome, Plan, Progress, SlotLoad
from motet_runtime.engine.sequence import Adapter, FinishReason, RowFailure, Sequence
from motet_runtime.engine.slots import Slot, SlotTable

_PATIENCE: Final = 64
"""Steps in which an adapter that gets no slot lets others begin; then nobody begins until it has one."""


@dataclass(frozen=True, slots=True)
class Budgets:
    """What sequences share."""

    max_batch_size: int
    max_step_tokens: int
    blocks: int
    block_size: int
    slots: int
    rows: int

    def __post_init__(self) -> None:
        if self.max_batch_size < 1 or self.max_step_tokens < self.max_batch_size:
            raise ValueError("max_step_tokens must be at least max_batch_size, which must be at least 1")


class _Verdict(Enum):
    ADMITTED = auto()
    NO_BLOCKS = auto()
    NO_SLOT = auto()
    LOADING = auto()
    SAME_PREFIX = auto()


class Scheduler:
    """Waiting and running sequences, and the budgets they share."""

    def __init__(self, budgets: Budgets, eos_ids: Iterable[int], pace: Pace) -> None:
        self.budgets = budgets
        self.pool = BlockPool(budgets.blocks, budgets.block_size)
        self.slots = SlotTable(budgets.slots, budgets.rows)
        self.preemptions = 0
        self._pace = pace
        self._eos_ids = frozenset(eos_ids)
        self._flows = Flows()
        self._running: list[Sequence] = []
        self._keys: dict[int, PrefixKeys] = {}
        self._computing: dict[BlockKey, int] = {}
        self._loads: list[SlotLoad] = []

    @property
    def eos_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return self._eos_ids

    @property
    def waiting(self) -> int:
        """Sequences that are not in the batch."""
        return len(self._flows)

    @property
    def running(self) -> int:
        """Sequences in the batch."""
        return len(self._running)

    def refusal(self, sequence: Sequence) -> str | None:
        """Why a sequence could never run, if so."""
        tokens = len(sequence.prompt) + sequence.params.max_new_tokens
        room = self.pool.count * self.pool.block_size
        if tokens > room:
            return f"prompt and answer may take {tokens} tokens; the KV cache holds {room}"
        if sequence.adapter and not self.slots.fits(sequence.adapter.rank):
            return f"adapter {sequence.adapter.id} of rank {sequence.adapter.rank} does not fit the adapter memory"
        return None

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence that `refusal` has nothing against."""
        self._keys[sequence.id] = PrefixKeys(sequence, self.pool.block_size)
        self._flows.enqueue(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence and free what it holds, wherever it is; harmless if it has ended."""
        if sequence in self._running:
            self._leave(sequence)
            self._flows.ended(sequence)
        elif not self._flows.withdraw(sequence):
            return
        del self._keys[sequence.id]

    def prefetch(self, adapter: Adapter) -> None:
        """Give an adapter a slot before anybody asks for it, unless another would have to go."""
        if self.slots.has_room(adapter.rank) and self.slots.find(adapter.digest) is None:
            self._begin_load(adapter)

    def loaded(self, digest: Digest) -> None:
        """An adapter's weights have arrived in its slot."""
        slot = self.slots.find(digest)
        if slot is not None:
            slot.ready = True
            if slot.unwanted:
                self.slots.drop(digest)

    def forget_adapter(self, digest: Digest) -> None:
        """An adapter is gone for good, and nobody uses it."""
        slot = self.slots.find(digest)
        if slot is not None and not slot.ready:
            slot.unwanted = True
        else:
            self.slots.drop(digest)

    def load_failed(self, digest: Digest, error: str) -> list[Failed]:
        """An adapter's weights could not be copied: who waits for them fails."""
        self.slots.drop(digest)
        waiting = [one for one in self._flows.all_waiting() if one.adapter and one.adapter.digest == digest]
        for sequence in waiting:
            self.remove(sequence)
        return [Failed(sequence, error) for sequence in waiting]

    def schedule(self) -> Plan:
        """The next step; without chunks if there is nothing to compute now."""
        # 1. One token for each running answer.
        answers = self._decodes()
        budget = self.budgets.max_step_tokens - len(answers)
        begun = [sequence for sequence in self._running if self._is_prompt(sequence)]
        long = [sequence for sequence in begun if self._is_long(sequence)]
        # 2. Prompts that have begun, in order; at least half is theirs, should the long ones want the rest.
        kept = min(self._allowance(long, answers, budget), budget // 2) if long else 0
        counts = _in_order([sequence for sequence in begun if sequence not in long], budget - kept)
        # 3. New sequences, in what is left.
        room = budget - kept - sum(counts.values())
        new = self._admissions(room, answers)
        counts |= _in_order([sequence for sequence in new if not self._is_long(sequence)], room)
        # 4. Long prompts, in what is left by those.
        long += [sequence for sequence in new if self._is_long(sequence)]
        short = sum(counts.values())
        left = budget - short
        allowed = min(self._allowance(long, answers, left, short), left)
        counts |= _shared(long, allowed)
        if long and answers:
            self._pace.give(allowed)
        chunks = [*answers, *(_chunk(sequence, count) for sequence, count in counts.items() if count)]
        for chunk in chunks:
            self._flows.charge(chunk.sequence, chunk.count)
        loads, self._loads = tuple(self._loads), []
        return Plan(tuple(chunks), loads)

    def update(self, plan: Plan, out: Mapping[int, object], seconds: float) -> list[Outcome]:
        """Take in a step's outcome by sequence id: a SampledToken for each chunk that samples, or a RowFailure."""
        self._pace.observe(
            seconds,
            sum(chunk.decodes for chunk in plan.chunks),
            [(chunk.start, chunk.count) for chunk in plan.chunks if not chunk.decodes],
        )
        outcomes: list[Outcome] = []
        for chunk in plan.chunks:
            sequence, result = chunk.sequence, out.get(chunk.sequence.id)
            if isinstance(result, RowFailure):
                self.remove(sequence)
                outcomes.append(Failed(sequence, result.message))
                continue
            sequence.computed += chunk.count
            self._register(sequence, chunk.start)
            if result is None:
                continue
            sequence.output.append(result.id)  # type: ignore[attr-defined]
            finish = self._finish(sequence)
            if finish:
                self.remove(sequence)
            outcomes.append(Progress(sequence, result, finish))  # type: ignore[arg-type]
        return outcomes

    def _decodes(self) -> list[Chunk]:
        chunks: list[Chunk] = []
        size = self.pool.block_size
        for sequence in list(self._running):
            if sequence.pending != 1 or sequence.computed < len(sequence.prompt) or not sequence.blocks:
                continue
            while len(sequence.blocks) * size <= sequence.computed:
                block = self.pool.allocate(1)
                if block is not None:
                    sequence.blocks += block
                elif self._preempt_last() is sequence:
                    break
            else:
                chunks.append(Chunk(sequence, sequence.computed, 1, samples=True))
        return chunks

    def _preempt_last(self) -> Sequence:
        sequence = self._running[-1]
        self._leave(sequence)
        sequence.computed = 0
        self._flows.put_back(sequence)
        self.preemptions += 1
        return sequence

    def _allowance(self, long: list[Sequence], answers: list[Chunk], budget: int, short: int = 0) -> int:
        """Most tokens of all long prompts together in a step, which has `short` tokens of short ones."""
        return self._pace.tokens(long[0].computed, short) if long and answers else budget

    def _admissions(self, budget: int, answers: list[Chunk]) -> list[Sequence]:
        """Begin with new sequences while tokens and seats are left."""
        new: list[Sequence] = []
        blocked: set[object] = set()
        seats = self.budgets.max_batch_size - len(self._running)
        while budget > 0 and seats > 0:
            before = len(new)
            for flow in self._flows.in_turn():
                if budget <= 0 or seats <= 0:
                    break
                if flow.key in blocked:
                    continue
                sequence = flow.waiting[0]
                verdict = self._admit(flow)
                # A seat is kept for whose weights are on their way: those further back must not push them out again.
                seats -= verdict in {_Verdict.ADMITTED, _Verdict.LOADING}
                if verdict is _Verdict.ADMITTED:
                    new.append(sequence)
                    long = [sequence] if self._is_long(sequence) else []
                    budget -= min(sequence.pending, self._allowance(long, answers, budget))
                    continue
                blocked.add(flow.key)
                if verdict is _Verdict.NO_SLOT:
                    flow.passed_over += 1
                if verdict is _Verdict.NO_BLOCKS or flow.passed_over > _PATIENCE:
                    return new
            if len(new) == before:
                break
        return new

    def _admit(self, flow: Flow) -> _Verdict:
        sequence = flow.waiting[0]
        # The adapter first: its copy can be under way while the sequence waits for the rest.
        slot: Slot | None = None
        if sequence.adapter is not None:
            slot = self.slots.find(sequence.adapter.digest) or self._begin_load(sequence.adapter)
            if slot is None:
                return _Verdict.NO_SLOT
            slot.unwanted = False
        size = self.pool.block_size
        keys = self._keys[sequence.id].upto(_cacheable(sequence))
        shared = self.pool.match(keys)
        if len(shared) < len(keys) and keys[len(shared)] in self._computing:
            return _Verdict.SAME_PREFIX  # somebody computes it at this moment: it will be there to share
        if slot is not None and not slot.ready:
            return _Verdict.LOADING
        self.pool.hold(shared)
        spare = len(self._running)  # a block for each running answer to go on with
        wanted = -(-len(sequence) // size) - len(shared)
        enough = self.pool.available >= wanted + spare or not self._running
        fresh = self.pool.allocate(wanted) if enough else None
        if fresh is None:
            self.pool.release(shared)
            return _Verdict.NO_BLOCKS
        self.pool.count_lookup(len(sequence), len(shared) * size)
        sequence.blocks = shared + fresh
        sequence.computed = len(shared) * size
        sequence.cached = min(sequence.computed, len(sequence.prompt))
        for key in keys[len(shared) :]:
            self._computing.setdefault(key, sequence.id)
        if slot is not None:
            slot.pins += 1
            sequence.row = slot.row
        self._running.append(self._flows.admit(flow))
        return _Verdict.ADMITTED

    def _begin_load(self, adapter: Adapter) -> Slot | None:
        slot = self.slots.place(adapter)
        if slot is not None:
            self._loads.append(SlotLoad(adapter, slot.row))
        return slot

    def _leave(self, sequence: Sequence) -> None:
        """Take a sequence out of the batch and free its blocks and its pin."""
        self._running.remove(sequence)
        keys = self._keys[sequence.id].upto(_cacheable(sequence))
        for key in keys:
            if self._computing.get(key) == sequence.id:
                del self._computing[key]
        self.pool.release(sequence.blocks)
        sequence.blocks = []
        if sequence.adapter is not None:
            slot = self.slots.find(sequence.adapter.digest)
            assert slot is not None
            slot.pins -= 1

    def _register(self, sequence: Sequence, start: int) -> None:
        """Blocks that this step has filled can be shared from now on."""
        size = self.pool.block_size
        if sequence.computed // size == start // size:
            return
        keys = self._keys[sequence.id].upto(sequence.computed)
        for index in range(start // size, len(keys)):
            self.pool.register(sequence.blocks[index], keys[index])
            if self._computing.get(keys[index]) == sequence.id:
                del self._computing[keys[index]]

    def _is_prompt(self, sequence: Sequence) -> bool:
        return sequence.pending > 1 or sequence.computed < len(sequence.prompt)

    def _is_long(self, sequence: Sequence) -> bool:
        return len(sequence) - sequence.cached > self.budgets.max_step_tokens

    def _finish(self, sequence: Sequence) -> FinishReason | None:
        if sequence.output[-1] in self._eos_ids and not sequence.params.ignore_eos:
            return FinishReason.EOS
        if len(sequence.output) >= sequence.params.max_new_tokens:
            return FinishReason.LENGTH
        return None

    def check(self) -> None:
        """Raise AssertionError if something leaks (for tests)."""
        self.pool.check()
        self.slots.check()
        held = sum(len(sequence.blocks) for sequence in self._running)
        assert len(self._running) <= self.budgets.max_batch_size
        assert (held > 0) == (self.pool.held > 0)
        assert held >= self.pool.held
        pins = sum(slot.pins for slot in self.slots)
        assert pins == sum(sequence.adapter is not None for sequence in self._running)
        owners = set(self._computing.values())
        assert owners <= {sequence.id for sequence in self._running}
        assert len(self._keys) == self.waiting + self.running


def _chunk(sequence: Sequence, count: int) -> Chunk:
    return Chunk(sequence, sequence.computed, count, samples=count == sequence.pending)


def _cacheable(sequence: Sequence) -> int:
    """Tokens that may come from the prefix cache: not the last, none whose successor's log-probability is wanted."""
    wanted = sequence.params.prompt_logprobs_from
    return min(len(sequence) - 1, len(sequence) if wanted is None else max(0, wanted - 1))


def _in_order(prompts: list[Sequence], budget: int) -> dict[Sequence, int]:
    counts: dict[Sequence, int] = {}
    for sequence in prompts:
        counts[sequence] = min(sequence.pending, budget)
        budget -= counts[sequence]
    return counts


def _shared(prompts: list[Sequence], budget: int) -> dict[Sequence, int]:
    """Tokens for each prompt: half of the budget to the oldest, so that it gets done, the rest to the shortest."""
    counts = dict.fromkeys(prompts, 0)
    if prompts:
        counts[prompts[0]] = min(prompts[0].pending, (budget + 1) // 2)
    for sequence in sorted(prompts, key=lambda sequence: sequence.pending):
        left = budget - sum(counts.values())
        counts[sequence] += min(sequence.pending - counts[sequence], left)
    return counts
