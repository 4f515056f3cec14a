"""The scheduler keeps its budgets, its order, and answers ahead of prompts. No torch."""

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motet_runtime.engine.pace import Pace
from motet_runtime.engine.plan import Failed, Plan
from motet_runtime.engine.scheduler import Budgets, Scheduler
from motet_runtime.engine.sequence import FinishReason, RowFailure, SampledToken
from tests.runtime.engine_runs import EOS, Run, adapter, budgets, ones, run, sequence


class FixedPace(Pace):
    """Always the same allowance."""

    def __init__(self, allowance: int) -> None:
        super().__init__(2.0, 1000.0)
        self.allowance = allowance

    def tokens(self, start: int, beside: int = 0) -> int:
        return self.allowance


def paced(allowance: int, **changes: int) -> Run:
    return Run(Scheduler(budgets(**changes), (), FixedPace(allowance)))


def test_answers_go_before_prompts_and_a_short_prompt_goes_whole() -> None:
    engine = run(max_step_tokens=8)
    engine.add(sequence(1, 3, 9))
    assert engine.rows() == [(1, 0, 3)]
    engine.add(sequence(2, 7, 9))
    assert engine.rows() == [(1, 3, 1), (2, 0, 7)]
    assert engine.rows() == [(1, 4, 1), (2, 7, 1)]


def test_a_long_prompt_beside_answers_gets_what_its_pace_allows() -> None:
    engine = paced(5, max_step_tokens=16)
    engine.add(sequence(1, 3, 30))
    engine.step()
    engine.add(sequence(2, 40))
    assert engine.rows() == [(1, 3, 1), (2, 0, 5)]
    assert engine.rows() == [(1, 4, 1), (2, 5, 5)]


def test_a_long_prompt_alone_gets_the_whole_step() -> None:
    engine = paced(5, max_step_tokens=16)
    engine.add(sequence(1, 40))
    assert [engine.rows() for _ in range(3)] == [[(1, 0, 16)], [(1, 16, 16)], [(1, 32, 8)]]


def test_all_long_prompts_share_one_allowance() -> None:
    engine = paced(6, max_step_tokens=16)
    engine.add(sequence(1, 3, 60))
    engine.step()
    engine.add(*(sequence(number, 40) for number in (2, 3, 4)))
    for _ in range(25):
        plan = engine.step()
        assert plan.chunks[0].decodes
        assert plan.tokens - sum(chunk.decodes for chunk in plan.chunks) <= 6
    assert {one.id for one in engine.finished} == {2, 3, 4}


def test_a_short_prompt_passes_a_long_one_which_goes_on() -> None:
    engine = run(max_step_tokens=8)
    engine.add(sequence(1, 40))
    assert engine.rows() == [(1, 0, 8)]
    engine.add(sequence(2, 3))
    assert engine.rows() == [(2, 0, 3), (1, 8, 5)], "the short one is through at once"
    assert sum(count for number, _, count in engine.rows() if number == 1) > 3


def test_short_prompts_without_end_leave_a_long_one_its_half() -> None:
    engine = run(max_step_tokens=8, max_batch_size=4)
    long = sequence(1, 40, 1)
    engine.add(long)
    engine.add(*(sequence(number, 6, 1) for number in range(2, 40)))
    while long.computed < 40:
        shares = {number: count for number, _, count in engine.rows()}
        assert shares.get(1, 0) >= 4 or long.computed in (0, 40)
    assert engine.steps < 15
    assert len(engine.finished) > 3, "short ones went beside it"


def test_of_long_prompts_the_oldest_gets_half_and_the_shortest_the_rest() -> None:
    engine = run(max_step_tokens=8)
    engine.add(sequence(1, 60, 1))
    engine.step()
    engine.add(sequence(2, 50, 1), sequence(3, 20, 1))
    for _ in range(3):
        engine.step()
    for _ in range(3):
        assert {number: count for number, _, count in engine.rows()} == {1: 4, 3: 4}
    engine.finish()
    assert [one.id for one in engine.finished] == [3, 1, 2]


def test_a_full_batch_makes_the_next_wait() -> None:
    engine = run(max_batch_size=2)
    engine.add(*(sequence(number, 2, 1) for number in (1, 2, 3)))
    assert [row[0] for row in engine.rows()] == [1, 2]
    assert (engine.scheduler.running, engine.scheduler.waiting) == (0, 1)
    assert [row[0] for row in engine.rows()] == [3]
    assert engine.rows() == []


@pytest.mark.parametrize(("batch", "tokens"), [(0, 8), (8, 7)])
def test_a_step_that_cannot_hold_all_answers_is_refused(batch: int, tokens: int) -> None:
    with pytest.raises(ValueError, match="max_step_tokens"):
        Budgets(batch, tokens, 8, 4, 1, 8)


def test_an_answer_ends_at_eos_unless_told_otherwise_and_at_its_length() -> None:
    engine = run(eos=(EOS,))
    ends, goes_on = sequence(1, 2), sequence(2, 2, 3, ignore_eos=True)
    engine.compute = lambda plan: {chunk.sequence.id: SampledToken(EOS) for chunk in plan.chunks if chunk.samples}
    engine.add(ends, goes_on)
    plan = engine.scheduler.schedule()
    progress = engine.scheduler.update(plan, engine.compute(plan), 0.1)
    found = {row.sequence.id: row.finish for row in progress if not isinstance(row, Failed)}
    assert found == {1: FinishReason.EOS, 2: None}
    engine.finish()
    assert len(goes_on.output) == 3


def test_a_row_that_failed_ends_and_the_others_go_on() -> None:
    engine = run()
    well, ill = sequence(1, 3), sequence(2, 3)
    engine.add(well, ill)
    engine.compute = lambda plan: {**ones(plan), 2: RowFailure("as told")}
    engine.step()
    assert engine.failures == [Failed(ill, "as told")]
    engine.compute = ones
    assert [row[0] for row in engine.rows()] == [1]
    engine.finish()
    assert engine.finished == [well]


def test_what_can_never_run_is_refused() -> None:
    scheduler = run(blocks=4, block_size=4, rows=16).scheduler
    assert scheduler.refusal(sequence(1, 12, 4)) is None
    assert "17 tokens; the KV cache holds 16" in (scheduler.refusal(sequence(1, 13, 4)) or "")
    assert scheduler.refusal(sequence(1, 1, 1, adapter("a", rank=16))) is None
    assert "rank 17 does not fit" in (scheduler.refusal(sequence(1, 1, 1, adapter("a", rank=17))) or "")


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_who_is_removed_frees_everything_at_once(steps: int) -> None:
    engine = run(max_batch_size=1, max_step_tokens=8)
    first, second = sequence(1, 20, adapter=adapter("a")), sequence(2, 2)
    engine.add(first)
    for _ in range(steps):
        engine.step()
    engine.scheduler.remove(first)
    engine.scheduler.remove(first)
    engine.check_empty()
    engine.add(second)
    assert engine.rows() == [(2, 0, 2)]


def test_a_request_that_waits_for_its_adapter_can_be_withdrawn() -> None:
    engine = run(delay=3)
    one = sequence(1, 4, adapter=adapter("a"))
    engine.add(one)
    engine.step()
    engine.scheduler.remove(one)
    engine.check_empty()
    for _ in range(5):
        engine.step()
    assert [slot.ready for slot in engine.scheduler.slots] == [True], "it came, and may be of use to the next"


def test_blocks_run_out_and_the_youngest_is_computed_again() -> None:
    engine = run(blocks=8, block_size=4, max_batch_size=4)
    engine.compute = lambda plan: {
        chunk.sequence.id: SampledToken(len(chunk.sequence)) for chunk in plan.chunks if chunk.samples
    }
    old, young = sequence(1, 8, 16), sequence(2, 6, 16)
    engine.add(old, young)
    tokens = []
    while engine.scheduler.preemptions == 0:
        engine.step()
        tokens.append(list(young.output))
    assert young.computed == 0 and not young.blocks
    assert young.output == tokens[-1] and len(young.output) > 2, "what was said stays said"
    assert old.blocks
    engine.finish()
    assert engine.finished[0] is old
    assert young.output == list(range(6, 22)), "each token once, in order"


def test_the_oldest_is_never_preempted_and_nobody_starves_for_blocks() -> None:
    engine = run(blocks=9, block_size=2, max_batch_size=6, max_step_tokens=16)
    all_of_them = [sequence(number, 4, 12) for number in range(1, 13)]
    engine.add(*all_of_them)
    while engine.scheduler.running or engine.scheduler.waiting:
        oldest = engine.scheduler._running[:1]
        engine.step()
        assert all(one.blocks or one in engine.finished for one in oldest)
    assert engine.scheduler.preemptions
    assert [len(one.output) for one in all_of_them] == [12] * 12


def test_a_preempted_request_goes_before_others_of_its_adapter_and_reports_no_more_cached_than_its_prompt() -> None:
    engine = run(blocks=8, block_size=2, max_batch_size=2)
    old, young, late = sequence(1, 4, 12), sequence(2, 4, 11), sequence(3, 4, 12)
    engine.add(old, young, late)
    engine.finish()
    assert engine.scheduler.preemptions
    assert [one.id for one in engine.finished] == [1, 2, 3]
    assert young.cached <= 4


@settings(max_examples=60, deadline=None)
@given(
    prompts=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    batch=st.integers(1, 5),
    extra=st.integers(0, 20),
    answers=st.integers(1, 6),
    blocks=st.integers(12, 40),
    allowance=st.integers(1, 30),
)
def test_budgets_hold_and_everything_ends(
    prompts: list[int], batch: int, extra: int, answers: int, blocks: int, allowance: int
) -> None:
    engine = paced(allowance, max_batch_size=batch, max_step_tokens=batch + extra, blocks=blocks)
    sequences = [sequence(number, prompt, answers) for number, prompt in enumerate(prompts)]
    engine.add(*sequences)
    engine.finish()
    assert [len(one.output) for one in sequences] == [answers] * len(sequences)


def test_a_step_without_work_is_empty() -> None:
    assert run().scheduler.schedule() == Plan(())


def test_imports_no_torch() -> None:
    code = (
        "import sys, motet_runtime.engine.scheduler, motet_runtime.adapters.residency, motet_runtime.main;"
        "print(sorted({'torch', 'transformers', 'peft', 'kubernetes', 'numba'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert done.stdout.strip() == "[]"


def test_a_long_prompt_beside_answers_is_read_whatever_short_prompts_come() -> None:
    engine = run(blocks=600, max_batch_size=16, stretch=2.0)
    engine.seconds = lambda plan: 0.02 + 0.001 * sum(chunk.count for chunk in plan.chunks if not chunk.decodes)
    engine.add(*(sequence(number, 3, 500) for number in (1, 2, 3)))
    for _ in range(5):
        engine.step()
    long = sequence(4, 400)
    engine.add(long)
    for number in range(10, 610):
        engine.add(sequence(number, 20, 1))
        engine.step()
        if long.output:
            break
    assert long.output, f"only {long.computed} of 400 tokens were read"
