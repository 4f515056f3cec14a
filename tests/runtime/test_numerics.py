"""Mixed batches equal PEFT one by one: eight adapters of different ranks and modules, and the base, in one batch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from motet_api.identity import AdapterId
from motet_api.modeldeployment import DType
from motet_runtime.adapters.artifact import verify
from motet_runtime.engine.lora import read_weights
from motet_runtime.engine.model import ModelRunner, load_model
from motet_runtime.engine.scheduler import Chunk, Plan, Scheduler
from motet_runtime.engine.sequence import SamplingParams, Sequence
from tests.models import make_adapter, make_tiny_llama
from tests.runtime.peft_reference import PeftReference
from tests.smollm2 import smollm2

ADAPTERS: Mapping[str, Mapping[str, Any]] = {
    "a": {"rank": 2, "targets": ("q_proj",)},
    "b": {"rank": 4, "targets": ("q_proj", "v_proj")},
    "c": {"rank": 8, "targets": ("q_proj", "k_proj", "v_proj", "o_proj")},
    "d": {"rank": 3, "targets": "all-linear"},
    "e": {"rank": 16, "targets": ("up_proj", "down_proj"), "config": {"use_rslora": True}},
    "f": {"rank": 5, "targets": r".*\.1\..*(gate|q)_proj"},
    "g": {
        "rank": 4,
        "targets": ("q_proj", "o_proj"),
        "config": {"rank_pattern": {"o_proj": 9}, "alpha_pattern": {"q_proj": 3}},
    },
    "h": {"rank": 6, "targets": ("v_proj",), "config": {"layers_to_transform": [0]}},
}
LENGTHS = (1, 5, 17, 33, 64, 3, 90, 12, 40, 7)


class Bench:
    """A runner and the reference, over the same base and the same adapters."""

    def __init__(self, base: Path, folder: Path, scale: float) -> None:
        paths = {
            name: make_adapter(folder / name, base, seed=index, scale=scale, **options)
            for index, (name, options) in enumerate(ADAPTERS.items())
        }
        self.reference = PeftReference(base, paths)
        self.runner: ModelRunner = load_model(base, DType.FLOAT32, lambda _: None)
        for name, path in paths.items():
            artifact = verify(path, None, self.runner.lora.shapes, max_rank=64)
            self.runner.lora.install(AdapterId(name), read_weights(artifact, torch.float32, torch.device("cpu")))

    def sequences(self, vocabulary: int, new_tokens: int) -> list[Sequence]:
        """Ten prompts: one for each adapter, two for the base."""
        generator = torch.Generator().manual_seed(7)
        owners = [*ADAPTERS, None, None]
        return [
            Sequence(
                id=index,
                prompt=tuple(torch.randint(0, vocabulary, (length,), generator=generator).tolist()),
                params=SamplingParams(max_new_tokens=new_tokens, ignore_eos=True),
                adapter=AdapterId(owner) if owner else None,
            )
            for index, (owner, length) in enumerate(zip(owners, LENGTHS, strict=True))
        ]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("tiny")
    return Bench(make_tiny_llama(folder / "base"), folder, scale=0.3)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(smollm2(), tmp_path_factory.mktemp("smollm2"), scale=0.05)


def check_logits(bench: Bench, vocabulary: int) -> None:
    sequences = sorted(bench.sequences(vocabulary, 1), key=lambda sequence: sequence.adapter or "")
    plan = Plan(tuple(Chunk(sequence, 0, len(sequence), samples=True) for sequence in sequences))
    _, logits = bench.runner.logits(plan)
    for row, sequence in zip(logits, sequences, strict=True):
        expected = bench.reference.logits(sequence.adapter, sequence.prompt)[-1]
        torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
        bench.runner.forget(sequence)


def check_greedy(bench: Bench, vocabulary: int, new_tokens: int, batch: int, step_tokens: int) -> None:
    """Rows join and leave in mid-way, and prompts are cut into chunks; every token is the reference's."""
    sequences = bench.sequences(vocabulary, new_tokens)
    scheduler = Scheduler(max_batch_size=batch, max_step_tokens=step_tokens, eos_ids=())
    for sequence in sequences:
        scheduler.add(sequence)
    mixed = 0
    while plan := scheduler.schedule():
        if not plan.chunks:
            break
        mixed = max(mixed, len({chunk.sequence.adapter for chunk in plan.chunks}))
        for progress in scheduler.update(plan, bench.runner.run(plan)):
            if progress.finish:
                bench.runner.forget(progress.sequence)
    assert mixed > 2, "the batches were meant to mix adapters"
    for sequence in sequences:
        assert sequence.output == bench.reference.greedy(sequence.adapter, sequence.prompt, new_tokens)


def test_logits_equal_peft_one_by_one(tiny: Bench) -> None:
    check_logits(tiny, 256)


@pytest.mark.parametrize(("batch", "step_tokens"), [(10, 512), (4, 16), (3, 7)])
def test_greedy_tokens_equal_peft_one_by_one(tiny: Bench, batch: int, step_tokens: int) -> None:
    check_greedy(tiny, 256, new_tokens=12, batch=batch, step_tokens=step_tokens)


def test_adapters_change_what_the_base_says(tiny: Bench) -> None:
    prompt = tiny.sequences(256, 1)[6].prompt
    answers = {name: tuple(tiny.reference.greedy(name, prompt, 8)) for name in (*ADAPTERS, None)}
    assert len(set(answers.values())) == len(answers), "the comparison would hold for a base that ignored adapters"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_smollm2_equals_peft_one_by_one(real: Bench) -> None:
    check_logits(real, 49152)
    check_greedy(real, 49152, new_tokens=4, batch=10, step_tokens=128)
