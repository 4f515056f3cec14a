"""Whatever runs beside it, and however it was cut up, a request gets what PEFT computes for it alone."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from motet_api.dtypes import DType
from motet_api.identity import AdapterId
from motet_runtime.classification import LabelRequest, score_labels
from motet_runtime.engine.attention_cpu import _MOST_RUNS
from motet_runtime.engine.blocks import runs
from motet_runtime.engine.kernels_cpu import add_low_rank
from motet_runtime.engine.plan import Plan
from motet_runtime.engine.sequence import RowFailure, SampledToken, Sequence
from tests.models import make_adapter, make_classifier, make_tiny_llama
from tests.runtime.engine_runs import Engine, Run, answers, load_engine
from tests.runtime.peft_reference import PeftReference, classify
from tests.smollm2 import smollm2

INVOCATION = (60, 7, 60)
ADAPTERS: Mapping[str, Mapping[str, Any]] = {
    "one module": {"rank": 2, "targets": ("q_proj",)},
    "two modules": {"rank": 4, "targets": ("q_proj", "v_proj")},
    "attention": {"rank": 8, "targets": ("q_proj", "k_proj", "v_proj", "o_proj")},
    "all-linear": {"rank": 3, "targets": "all-linear"},
    "rslora": {"rank": 16, "targets": ("up_proj", "down_proj"), "config": {"use_rslora": True}},
    "regex": {"rank": 5, "targets": r".*\.1\..*(gate|q)_proj"},
    "patterns": {
        "rank": 4,
        "targets": ("q_proj", "o_proj"),
        "config": {"rank_pattern": {"o_proj": 9}, "alpha_pattern": {"q_proj": 3}},
    },
    "layers": {"rank": 6, "targets": ("v_proj",), "config": {"layers_to_transform": [0]}},
    "activated": {"rank": 7, "targets": "all-linear", "config": {"alora_invocation_tokens": list(INVOCATION)}},
}
OWNERS = (*ADAPTERS, None, "all-linear", "activated", None, "all-linear")
LENGTHS = (1, 5, 17, 33, 64, 3, 90, 12, 40, 7, 33, 70, 16, 1)
LAYOUTS: Mapping[str, Mapping[str, int]] = {
    "all in one step": {},
    "chunks of prompts beside answers": {"max_batch_size": 4, "max_step_tokens": 16},
    "chunks that no block fits": {"max_batch_size": 3, "max_step_tokens": 7},
    "fewer slots than adapters": {"slots": 3, "rows": 24},
    "short of blocks": {"blocks": 9, "max_step_tokens": 32},
}


class Bench:
    """An engine and the reference, over the same base and the same adapters."""

    def __init__(self, base: Path, folder: Path, scale: float, dtype: DType = DType.FLOAT32, **options: int) -> None:
        paths = {
            name: make_adapter(folder / name, base, seed=index, scale=scale, **options_of)
            for index, (name, options_of) in enumerate(ADAPTERS.items())
        }
        self.base, self.paths = base, paths
        self.engine: Engine = load_engine(base, folder / "store", paths, dtype=dtype, **options)
        self.reference = PeftReference(base, paths)

    def sequences(self, vocabulary: int, new_tokens: int, **params: Any) -> list[Sequence]:
        """A prompt for each adapter, and some more."""
        generator = torch.Generator().manual_seed(7)
        made = []
        for owner, length in zip(OWNERS, LENGTHS, strict=True):
            prompt = torch.randint(0, vocabulary, (length,), generator=generator).tolist()
            if owner == "activated":
                prompt[length // 2 : length // 2] = INVOCATION
            made.append(self.engine.sequence(prompt, owner, new_tokens, **params))
        return made


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def tiny(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(base, tmp_path_factory.mktemp("tiny"), scale=0.3)


def recorded(run: Run) -> dict[int, list[SampledToken]]:
    """Where every token of a run will be found, by sequence."""
    tokens: dict[int, list[SampledToken]] = {}
    compute = run.compute

    def compute_and_record(plan: Plan) -> Mapping[int, SampledToken | RowFailure]:
        out = compute(plan)
        for number, token in out.items():
            assert isinstance(token, SampledToken), token
            tokens.setdefault(number, []).append(token)
        return out

    run.compute = compute_and_record
    return tokens


def deviations(tokens: Iterable[SampledToken], reference: PeftReference, one: Sequence) -> torch.Tensor:
    """By how much the log-probabilities of all tokens (answer, vocabulary) differ from the reference's."""
    owner = one.adapter.id if one.adapter else None
    logits = reference.logits(owner, [*one.prompt, *one.output], one.acts_from)[len(one.prompt) - 1 : -1]
    expected = torch.log_softmax(logits, dim=-1)
    found = torch.empty_like(expected)
    for row, token in zip(found, tokens, strict=True):
        for number, logprob in token.alternatives:
            row[number] = logprob
    return (found - expected).abs()


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_mixed_batch_equals_peft_one_by_one(tiny: Bench, layout: Mapping[str, int]) -> None:
    run = tiny.engine.run(**layout)
    tokens = recorded(run)
    sequences = tiny.sequences(256, 20, alternatives=258)
    answers(run, sequences)
    for one in sequences:
        assert deviations(tokens[one.id], tiny.reference, one).max() < 1e-3, one.adapter
        tiny.reference.check_greedy(one.adapter.id if one.adapter else None, one.prompt, one.output, one.acts_from)
    if "blocks" in layout:
        assert run.scheduler.preemptions
    if "slots" in layout:
        assert run.scheduler.slots.evictions


def test_weights_may_be_packed_while_requests_run(tiny: Bench, tmp_path: Path) -> None:
    engine = load_engine(tiny.base, tmp_path, tiny.paths, pack=False)
    run = engine.run(max_step_tokens=16)
    sequences = [
        engine.sequence(range(at, at + 50), owner, 12) for at, owner in enumerate(("all-linear", None, "attention"))
    ]
    run.add(*sequences)
    unpacked = True
    while run.scheduler.running or run.scheduler.waiting:
        run.step()
        unpacked = engine.loaded.runner.pack_next()
    assert not unpacked
    for one in sequences:
        tiny.reference.check_greedy(one.adapter.id if one.adapter else None, one.prompt, one.output)


def test_adapters_change_what_the_base_says(tiny: Bench) -> None:
    prompt = [*range(40), *INVOCATION, 9, 8]
    said = {name: tuple(tiny.reference.greedy(name, prompt, 8, 40 * (name == "activated"))) for name in ADAPTERS}
    said["base"] = tuple(tiny.reference.greedy(None, prompt, 8))
    assert len(set(said.values())) == len(said), "the comparison would hold for a base that ignored adapters"


def test_bfloat16_is_no_further_from_float32_than_pefts(base: Path, tmp_path: Path) -> None:
    bench = Bench(base, tmp_path, scale=0.1, dtype=DType.BFLOAT16)
    peft = PeftReference(base, bench.paths, torch.bfloat16)
    run = bench.engine.run(max_step_tokens=64)
    tokens = recorded(run)
    sequences = bench.sequences(256, 4, alternatives=258)
    answers(run, sequences)
    ours, theirs = [], []
    for one in sequences:
        owner, whole = one.adapter.id if one.adapter else None, [*one.prompt, *one.output]
        exact, rounded = (
            torch.log_softmax(each.logits(owner, whole, one.acts_from), -1) for each in (bench.reference, peft)
        )
        theirs.append((rounded - exact)[len(one.prompt) - 1 : -1].abs().flatten())
        ours.append(deviations(tokens[one.id], bench.reference, one).flatten())
    mean, theirs_mean = torch.cat(ours).mean(), torch.cat(theirs).mean()
    assert 0 < mean < 1.25 * theirs_mean
    assert theirs_mean < 0.5


@pytest.mark.parametrize("ranks", [(1, 7, 8), (0, 9, 3), (2000, 16, 1)])
def test_low_rank_products_of_any_rank(ranks: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    x, a, b = (torch.randn(shape, generator=generator) for shape in ((9, 24), (2100, 24), (2100, 40)))
    y = torch.zeros(9, 40)
    spans = [(0, 2), (2, 1), (4, 5)]
    rows = [0, 2000, 2050]
    numbers = (np.array(values, np.int32) for values in ([f for f, _ in spans], [c for _, c in spans], rows, ranks))
    add_low_rank(x.numpy(), y.numpy(), a.numpy(), b.numpy(), *numbers)
    expected = torch.zeros(9, 40)
    for (first, count), row, rank in zip(spans, rows, ranks, strict=True):
        span = slice(first, first + count)
        expected[span] = x[span] @ a[row : row + rank].T @ b[row : row + rank]
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("owner", [None, "all-linear", "activated"])
@pytest.mark.parametrize("tail", [1, 9])
def test_a_long_prefix_that_rows_share_is_attended_to_once_and_changes_nothing(
    tiny: Bench, owner: str | None, tail: int
) -> None:
    """Decode rows and chunks above the shared blocks, beside rows that share nothing."""
    prefix = torch.randint(0, 256, (200,), generator=torch.Generator().manual_seed(3)).tolist()
    invocation = INVOCATION if owner == "activated" else ()
    run = tiny.engine.run(max_step_tokens=256)
    sharing = [tiny.engine.sequence([*prefix, *invocation, *range(n, n + tail)], owner, 6) for n in range(4)]
    others = [tiny.engine.sequence(prefix[:50], "attention", 9), tiny.engine.sequence(prefix[20:60], None, 9)]
    run.add(*sharing, *others)
    groups = set()
    while run.scheduler.running or run.scheduler.waiting:
        run.step()
        groups |= {len(group.queries) for group in tiny.engine.loaded.runner._attention._step.shared}  # type: ignore[attr-defined]
    assert len(groups) > 1, "decode rows together, and chunks of more tokens"
    assert run.scheduler.pool.hit_tokens == 3 * 192
    for one in (*sharing, *others):
        name = one.adapter.id if one.adapter else None
        tiny.reference.check_greedy(name, one.prompt, one.output, one.acts_from)


def test_base_and_activated_loras_read_one_prefix(tiny: Bench) -> None:
    prefix = torch.randint(0, 256, (150,), generator=torch.Generator().manual_seed(4)).tolist()
    run = tiny.engine.run()
    base = tiny.engine.sequence([*prefix, 1], None, 4)
    activated = [tiny.engine.sequence([*prefix, *INVOCATION, number], "activated", 4) for number in range(2)]
    answers(run, [base, *activated])
    assert run.scheduler.pool.hit_tokens == 2 * 144
    for one in (base, *activated):
        name = one.adapter.id if one.adapter else None
        tiny.reference.check_greedy(name, one.prompt, one.output, one.acts_from)


def test_a_past_in_many_pieces(base: Path, tmp_path: Path) -> None:
    """Blocks that lie apart: chunks, decode rows and a shared prefix over them."""
    engine = load_engine(base, tmp_path, block_size=4, blocks=256)
    reference = PeftReference(base, {})
    prefix = torch.randint(0, 256, (140,), generator=torch.Generator().manual_seed(5)).tolist()
    run = engine.run(max_step_tokens=24, blocks=120)
    # Every fourth block is somebody else's.
    pool = run.scheduler.pool
    pool.release([block for block in pool.allocate(120) or [] if block % 4])
    sequences = [engine.sequence([*prefix, number, *prefix[:20]], None, 5) for number in range(3)]
    run.add(*sequences)
    pieces = 0
    while run.scheduler.running or run.scheduler.waiting:
        plan = run.scheduler.schedule()
        run.scheduler.update(plan, run.compute(plan), 0.01)
        pieces = max(pieces, *(len(runs(one.blocks, 4)) for one in sequences))
    assert pieces > _MOST_RUNS
    for one in sequences:
        reference.check_greedy(None, one.prompt, one.output)


@pytest.mark.parametrize(
    "layout",
    [{}, {"max_batch_size": 4, "max_step_tokens": 10}, {"blocks": 7, "max_step_tokens": 20}],
    ids=["whole", "chunks", "short of blocks"],
)
def test_log_probabilities_of_prompts_and_scores(tiny: Bench, layout: dict[str, int]) -> None:
    prompt = torch.randint(0, 256, (40,), generator=torch.Generator().manual_seed(6)).tolist()
    owners = ["all-linear", None]
    run = tiny.engine.run(**layout)
    wanting = [
        tiny.engine.sequence(prompt, owner, 24, prompt_logprobs_from=first, scores=(5, 200, 5))
        for owner in owners
        for first in (1, 17, 39)
    ]
    tokens = recorded(run)
    answers(run, wanting)
    assert run.scheduler.preemptions or "blocks" not in layout
    for one in wanting:
        owner = one.adapter.id if one.adapter else None
        expected = torch.log_softmax(tiny.reference.logits(owner, prompt), dim=-1)
        first = one.params.prompt_logprobs_from or 0
        picked = [float(expected[at - 1, prompt[at]]) for at in range(first, len(prompt))]
        assert one.prompt_logprobs == pytest.approx(picked, abs=1e-4)
        assert tokens[one.id][0].scores == pytest.approx([float(expected[-1, t]) for t in (5, 200, 5)], abs=1e-4)


def test_a_classification_head_equals_pefts(base: Path, tmp_path: Path) -> None:
    paths = {labels: make_classifier(tmp_path / str(labels), base, labels=labels, seed=labels) for labels in (2, 5)}
    other = make_adapter(tmp_path / "other", base, targets="all-linear", seed=9)
    named = {**{str(labels): path for labels, path in paths.items()}, "other": other}
    engine = load_engine(base, tmp_path / "store", named)
    prompts = [list(range(at, at + length)) for at, length in ((3, 1), (50, 30), (90, 70))]
    for layout in ({}, {"max_step_tokens": 16, "slots": 1}):
        run = engine.run(**layout)
        tokens = recorded(run)
        beside = [engine.sequence(prompt, owner, 5) for prompt in prompts for owner in ("other", None)]
        judged = [engine.sequence(prompt, str(labels)) for prompt in prompts for labels in paths]
        answers(run, [*beside, *judged])
        for one in judged:
            assert one.adapter
            labels = one.adapter.head_labels
            expected = classify(base, paths[labels], labels, one.prompt)
            assert tokens[one.id][0].scores == pytest.approx(expected, abs=1e-4)
            assert one.output == [expected.index(max(expected))]
        reference = PeftReference(base, {"other": other})
        for one in beside:
            reference.check_greedy(one.adapter.id if one.adapter else None, one.prompt, one.output)


@pytest.mark.parametrize("owner", ["all-linear", "activated", None])
async def test_labels_of_several_tokens_against_a_forward_over_prompt_and_label(tiny: Bench, owner: str | None) -> None:
    generator = torch.Generator().manual_seed(8)
    prompt = (*torch.randint(0, 256, (37,), generator=generator).tolist(), *INVOCATION, 4)
    # One has the invocation in it: the adapter acts from the prompt's on.
    labels = ((5,), (5, 6, 7), (200, 9), (*INVOCATION, 1), (8,) * 40)
    acts_from = 37 if owner == "activated" else 0
    expected = []
    for label in labels:
        logprobs = torch.log_softmax(tiny.reference.logits(owner, [*prompt, *label], acts_from), dim=-1)
        expected.append(sum(float(logprobs[len(prompt) - 1 + at, token]) for at, token in enumerate(label)))
    with tiny.engine.generator(tiny.base) as engine:
        adapter = AdapterId(owner) if owner else None
        (scores,) = await score_labels(engine, [LabelRequest(prompt, adapter, labels)])
    assert scores.logprobs == pytest.approx(expected, abs=1e-3)
    assert scores.probabilities == pytest.approx(torch.softmax(torch.tensor(expected), 0).tolist(), abs=1e-4)
    assert scores.cached_tokens == 0


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_smollm2_equals_peft_one_by_one(tmp_path: Path) -> None:
    bench = Bench(smollm2(), tmp_path, scale=0.05)
    for layout in ({}, {"max_step_tokens": 32, "slots": 4, "rows": 40}):
        sequences = bench.sequences(49152, 4)
        answers(bench.engine.run(**layout), sequences)
        for one in sequences:
            owner = one.adapter.id if one.adapter else None
            bench.reference.check_greedy(owner, one.prompt, one.output, one.acts_from, tie=1e-3)
