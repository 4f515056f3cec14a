"""Whatever comes when, with whichever adapter, and however little there is to share: each gets its own answer."""

from collections.abc import Iterator
from collections.abc import Sequence as Rows
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from motet_runtime.engine import attention_cpu
from motet_runtime.engine.sequence import Sequence
from tests.models import make_adapter, make_tiny_llama
from tests.runtime.engine_runs import Engine, Run, load_engine
from tests.runtime.peft_reference import PeftReference

SIZE = 4
INVOCATION = (60, 7)
ADAPTERS = {
    "small": {"rank": 2, "targets": ("q_proj", "v_proj")},
    "large": {"rank": 16, "targets": "all-linear"},
    "other": {"rank": 9, "targets": ("o_proj", "down_proj")},
    "judge": {"rank": 8, "targets": "all-linear", "config": {"alora_invocation_tokens": list(INVOCATION)}},
    "critic": {"rank": 3, "targets": ("k_proj", "up_proj"), "config": {"alora_invocation_tokens": list(INVOCATION)}},
}
ACTIVATED = ("judge", "critic")
PREFIXES: tuple[list[int], ...] = ([], [5] * 9, list(range(100, 140)), [*range(100, 120), *INVOCATION, *range(20)])
FEW = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


@dataclass(frozen=True)
class Request:
    """`arrives` and `leaves` (if it is cancelled) are steps."""

    arrives: int
    owner: str | None
    prefix: int
    own: tuple[int, ...]
    new_tokens: int
    leaves: int | None

    @property
    def prompt(self) -> list[int]:
        invocation = INVOCATION if self.owner in ACTIVATED else ()
        return [*PREFIXES[self.prefix], *invocation, *self.own]


@dataclass(frozen=True)
class Limits:
    """What there is to share."""

    batch: int
    step_tokens: int
    blocks: int
    slots: int
    rows: int
    delay: int

    def run(self, engine: Engine) -> Run:
        return engine.run(
            delay=self.delay,
            max_batch_size=self.batch,
            max_step_tokens=max(self.batch, self.step_tokens),
            blocks=self.blocks,
            slots=self.slots,
            rows=self.rows,
        )


REQUESTS = st.builds(
    Request,
    arrives=st.integers(0, 12),
    owner=st.sampled_from([None, *ADAPTERS]),
    prefix=st.integers(0, len(PREFIXES) - 1),
    own=st.lists(st.integers(0, 2), min_size=1, max_size=12).map(tuple),
    new_tokens=st.integers(1, 24),
    leaves=st.none() | st.none() | st.integers(1, 40),
)
LIMITS = st.builds(
    Limits,
    batch=st.integers(1, 6),
    step_tokens=st.sampled_from([1, 3, 8, 24, 200]),
    # The longest request takes 20 blocks.
    blocks=st.sampled_from([20, 22, 30, 120]),
    slots=st.integers(1, 3),
    rows=st.sampled_from([16, 24, 48]),
    delay=st.integers(0, 3),
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def paths(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return {
        name: make_adapter(folder / name, base, seed=seed, scale=0.2, **options)  # type: ignore[arg-type]
        for seed, (name, options) in enumerate(ADAPTERS.items())
    }


@pytest.fixture(scope="module")
def engine(base: Path, paths: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with pytest.MonkeyPatch.context() as patch:
        # So that these short prompts take the path of prefixes that are worth a call of their own.
        patch.setattr(attention_cpu, "_WORTH_SHARING", 2 * SIZE)
        yield load_engine(base, tmp_path_factory.mktemp("store"), paths, block_size=SIZE, blocks=512)


@pytest.fixture(scope="module")
def reference(base: Path, paths: dict[str, Path]) -> PeftReference:
    return PeftReference(base, paths)


def played(engine: Engine, run: Run, requests: Rows[Request]) -> list[Sequence]:
    """Let requests come and go; returns their sequences. `Run` checks each step's budgets, and that nothing leaks."""
    sequences = [engine.sequence(one.prompt, one.owner, one.new_tokens) for one in requests]
    last = max((max(one.arrives, one.leaves or 0) for one in requests), default=0)
    for step in range(last + 1):
        for request, one in zip(requests, sequences, strict=True):
            if request.arrives == step:
                run.add(one)
            if request.leaves == step and request.arrives <= step:
                run.scheduler.remove(one)
                run.scheduler.check()
        run.step()
    run.finish()
    assert not run.failures
    return sequences


@FEW
@given(requests=st.lists(REQUESTS, min_size=1, max_size=12), limits=LIMITS)
def test_each_answer_is_the_one_that_peft_gives(
    engine: Engine, reference: PeftReference, requests: list[Request], limits: Limits
) -> None:
    run = limits.run(engine)
    sequences = played(engine, run, requests)
    for request, one in zip(requests, sequences, strict=True):
        if request.leaves is None or request.leaves < request.arrives:
            assert len(one.output) == request.new_tokens
        if one.output:
            reference.check_greedy(request.owner, one.prompt, one.output, one.acts_from)
    assert {one.id for one in run.finished} >= {
        one.id for request, one in zip(requests, sequences, strict=True) if request.leaves is None
    }


@FEW
@given(requests=st.lists(REQUESTS, min_size=2, max_size=10), limits=LIMITS)
def test_the_prefix_cache_changes_no_token(
    engine: Engine, reference: PeftReference, requests: list[Request], limits: Limits
) -> None:
    """Twice in one engine, so that all prefixes are known the second time; and each alone in an empty one."""
    staying = [Request(one.arrives, one.owner, one.prefix, one.own, one.new_tokens, None) for one in requests]
    run = Limits(limits.batch, limits.step_tokens, 400, limits.slots, limits.rows, limits.delay).run(engine)
    first = played(engine, run, staying)
    hits = run.scheduler.pool.hit_tokens
    second = played(engine, run, staying)
    assert run.scheduler.pool.hit_tokens - hits == sum((len(one.prompt) - 1) // SIZE * SIZE for one in second)
    for request, *both in zip(staying, first, second, strict=True):
        alone = limits.run(engine)
        (single,) = played(engine, alone, [request])
        assert alone.scheduler.preemptions == alone.scheduler.pool.hit_tokens == 0
        for one in both:
            if one.output != single.output:  # only where the likeliest two are as good as equal
                reference.check_greedy(request.owner, one.prompt, one.output, one.acts_from)
                reference.check_greedy(request.owner, one.prompt, single.output, one.acts_from)
