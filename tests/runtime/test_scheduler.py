"""The scheduler keeps its budgets, its order, and decode ahead of prompts. No torch."""

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from motet_api.identity import AdapterId
from motet_runtime.engine.scheduler import Scheduler
from motet_runtime.engine.sequence import FinishReason, SampledToken, SamplingParams, Sequence

EOS = 99


def sequence(
    number: int, prompt: int, new_tokens: int = 4, adapter: str | None = None, ignore_eos: bool = False
) -> Sequence:
    params = SamplingParams(max_new_tokens=new_tokens, ignore_eos=ignore_eos)
    return Sequence(number, tuple(range(prompt)), params, AdapterId(adapter) if adapter else None)


def step(scheduler: Scheduler, token: int = 1) -> list[tuple[int, int, int]]:
    """One step in which every sampling chunk yields `token`; returns (sequence, start, count) of each chunk."""
    plan = scheduler.schedule()
    scheduler.update(plan, {chunk.sequence.id: SampledToken(token, -1.0) for chunk in plan.chunks if chunk.samples})
    return [(chunk.sequence.id, chunk.start, chunk.count) for chunk in plan.chunks]


def test_running_answers_come_before_a_long_prompt() -> None:
    scheduler = Scheduler(max_batch_size=4, max_step_tokens=8, eos_ids=())
    scheduler.add(sequence(1, prompt=3))
    assert step(scheduler) == [(1, 0, 3)]
    scheduler.add(sequence(2, prompt=20))
    assert step(scheduler) == [(1, 3, 1), (2, 0, 7)]
    assert step(scheduler) == [(1, 4, 1), (2, 7, 7)]


def test_a_short_prompt_passes_a_long_one_which_goes_on() -> None:
    scheduler = Scheduler(max_batch_size=4, max_step_tokens=8, eos_ids=())
    scheduler.add(sequence(1, prompt=40))
    assert step(scheduler) == [(1, 0, 8)]
    scheduler.add(sequence(2, prompt=3))
    assert step(scheduler) == [(1, 8, 5), (2, 0, 3)], "the short one is through at once"
    assert step(scheduler) == [(2, 3, 1), (1, 13, 7)]


def test_prompts_of_one_length_come_one_after_the_other() -> None:
    scheduler = Scheduler(max_batch_size=4, max_step_tokens=8, eos_ids=())
    for number in (1, 2):
        scheduler.add(sequence(number, prompt=12))
    assert step(scheduler) == [(1, 0, 8)]
    assert step(scheduler) == [(1, 8, 4), (2, 0, 4)]


def test_a_full_batch_makes_the_next_wait_in_order_of_arrival() -> None:
    scheduler = Scheduler(max_batch_size=2, max_step_tokens=64, eos_ids=())
    for number in (1, 2, 3):
        scheduler.add(sequence(number, prompt=2, new_tokens=1))
    assert [row[0] for row in step(scheduler)] == [1, 2]
    assert (scheduler.running, scheduler.waiting) == (0, 1)
    assert [row[0] for row in step(scheduler)] == [3]
    assert step(scheduler) == []


def test_an_answer_ends_at_eos_unless_told_otherwise() -> None:
    scheduler = Scheduler(max_batch_size=2, max_step_tokens=64, eos_ids=(EOS,))
    ends, goes_on = sequence(1, prompt=2), sequence(2, prompt=2, ignore_eos=True)
    for one in (ends, goes_on):
        scheduler.add(one)
    plan = scheduler.schedule()
    progress = scheduler.update(plan, {1: SampledToken(EOS, -1.0), 2: SampledToken(EOS, -1.0)})
    assert {row.sequence.id: row.finish for row in progress} == {1: FinishReason.EOS, 2: None}
    assert scheduler.running == 1


def test_removing_frees_the_place_at_once() -> None:
    scheduler = Scheduler(max_batch_size=1, max_step_tokens=8, eos_ids=())
    first, second = sequence(1, prompt=2), sequence(2, prompt=2)
    scheduler.add(first)
    scheduler.add(second)
    step(scheduler)
    scheduler.remove(first)
    scheduler.remove(first)
    assert step(scheduler) == [(2, 0, 2)]


def test_tokens_of_one_adapter_lie_side_by_side() -> None:
    scheduler = Scheduler(max_batch_size=8, max_step_tokens=64, eos_ids=())
    for number, adapter in enumerate(["b@1", None, "a@1", "b@1", None]):
        scheduler.add(sequence(number, prompt=2, adapter=adapter))
    order = [chunk.sequence.adapter for chunk in scheduler.schedule().chunks]
    assert order == [None, None, "a@1", "b@1", "b@1"]


@given(
    prompts=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    batch=st.integers(1, 5),
    extra=st.integers(0, 20),
    answers=st.integers(1, 6),
)
def test_budgets_hold_and_everything_ends(prompts: list[int], batch: int, extra: int, answers: int) -> None:
    scheduler = Scheduler(max_batch_size=batch, max_step_tokens=batch + extra, eos_ids=())
    sequences = [sequence(number, prompt, answers) for number, prompt in enumerate(prompts)]
    for one in sequences:
        scheduler.add(one)
    for _ in range(sum(prompts) + answers * len(prompts) + 1):
        rows = step(scheduler)
        assert len(rows) <= batch
        assert sum(count for _, _, count in rows) <= batch + extra
        if not rows:
            break
    assert all(len(one.output) == answers for one in sequences)
    assert (scheduler.running, scheduler.waiting) == (0, 0)


def test_imports_no_torch() -> None:
    code = (
        "import sys, motet_runtime.engine.scheduler, motet_runtime.adapters.residency, motet_runtime.main;"
        "print(sorted({'torch', 'transformers', 'peft', 'kubernetes'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert done.stdout.strip() == "[]"
