"""One row's fault is that row's alone: the rows beside it in the step get the answers they get without it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from motet_api.identity import AdapterId
from motet_api.modeldeployment import DType
from motet_api.reasons import AdapterReason
from motet_runtime.adapters.artifact import Artifact, verify
from motet_runtime.engine.lora import AdapterWeights, read_weights
from motet_runtime.engine.model import ModelRunner, load_model
from motet_runtime.engine.sampling import Sampler
from motet_runtime.engine.scheduler import Chunk, Failed, Plan, Scheduler
from motet_runtime.engine.sequence import RowFailure, SampledToken, SamplingParams, Sequence
from motet_runtime.errors import AdapterError
from tests.models import make_adapter, make_tiny_llama

CPU = torch.device("cpu")
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("rows") / "base")


@pytest.fixture
def runner(base: Path) -> ModelRunner:
    return load_model(base, DType.FLOAT32, lambda _: None)


def sequence(number: int, adapter: str | None = None, **params: float) -> Sequence:
    return Sequence(
        number, (1, 2, 3), SamplingParams(max_new_tokens=4, **params), AdapterId(adapter) if adapter else None
    )


def first_step(*sequences: Sequence) -> Plan:
    return Plan(tuple(Chunk(one, 0, 3, samples=True) for one in sequences))


def diverged(runner: ModelRunner) -> AdapterWeights:
    name = next(name for name in runner.lora.shapes if name.endswith("down_proj"))
    out_features, in_features = runner.lora.shapes[name]
    return AdapterWeights({name: (torch.full((2, in_features), torch.nan), torch.ones(out_features, 2))})


@pytest.mark.parametrize("sample", [False, True], ids=["greedy", "sampling"])
def test_a_row_without_its_adapter_or_with_numbers_that_are_none_fails_alone(runner: ModelRunner, sample: bool) -> None:
    alone = runner.run(first_step(sequence(1, sample=sample, seed=5)))
    runner.forget(sequence(1))
    runner.lora.install(AdapterId("diverged@v1"), diverged(runner))
    out = runner.run(
        first_step(
            sequence(1, sample=sample, seed=5),
            sequence(2, "gone@v1", sample=sample),
            sequence(3, "diverged@v1", sample=sample),
        )
    )
    token, again = alone[1], out[1]
    assert isinstance(token, SampledToken) and isinstance(again, SampledToken)
    assert (again.id, pytest.approx(token.logprob, rel=1e-5)) == (token.id, again.logprob)
    assert out[2] == RowFailure("adapter gone@v1 is not resident")
    failed = out[3]
    assert isinstance(failed, RowFailure) and "not finite" in failed.message


def test_the_scheduler_ends_a_row_that_failed_and_goes_on_with_the_others() -> None:
    scheduler = Scheduler(max_batch_size=4, max_step_tokens=8, eos_ids=())
    well, ill = sequence(1), sequence(2)
    for one in (well, ill):
        scheduler.add(one)
    outcomes = scheduler.update(scheduler.schedule(), {1: SampledToken(7, -1.0), 2: RowFailure("as told")})
    assert Failed(ill, "as told") in outcomes
    assert [chunk.sequence for chunk in scheduler.schedule().chunks] == [well]


@pytest.mark.parametrize("temperature", [1e-40, 1e-6, 1e-3])
def test_a_temperature_near_zero_takes_the_likeliest_token(temperature: float) -> None:
    logits = torch.tensor([[1.0, 900.0, 3.0, 899.0]])
    row = sequence(1, sample=True, temperature=temperature)
    found = Sampler(CPU).sample([row], logits)[1]
    assert isinstance(found, SampledToken)
    assert found.id == 1


def test_a_penalty_that_overflows_fails_its_own_row() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0, 4.0]] * 2)
    rows = [sequence(1, sample=True, repetition_penalty=1e-44), sequence(2)]
    found = Sampler(CPU).sample(rows, logits)
    assert isinstance(found[1], RowFailure)
    assert isinstance(found[2], SampledToken)


def test_moving_the_scores_leaves_the_choice_of_a_seed_as_it_was() -> None:
    logits = torch.linspace(-3, 3, 50)[None]
    params = SamplingParams(max_new_tokens=1, sample=True, temperature=1.3, top_k=20, top_p=0.9, typical_p=0.95)
    picks = []
    for offset in (0.0, 40.0):
        rows = [Sequence(n, (1,), replace(params, seed=n)) for n in range(20)]
        picks.append([out.id for out in Sampler(CPU).sample(rows, (logits + offset).repeat(20, 1)).values()])  # type: ignore[union-attr]
    assert picks[0] == picks[1]
    assert len(set(picks[0])) > 3


def rewritten(change: Callable[[torch.Tensor], torch.Tensor], adapter: Path) -> None:
    tensors = {name: change(tensor.clone()) for name, tensor in load_file(adapter / WEIGHTS).items()}
    (adapter / WEIGHTS).unlink()
    save_file(tensors, adapter / WEIGHTS)


def verified(adapter: Path, runner: ModelRunner) -> Artifact:
    return verify(adapter, None, runner.lora.shapes, max_rank=8)


@pytest.mark.parametrize(
    ("dtype", "change"),
    [(torch.float32, lambda t: t * torch.nan), (torch.float32, lambda t: t / 0), (torch.float16, lambda t: t * 1e9)],
    ids=["no number", "infinite", "beyond float16"],
)
def test_weights_that_are_not_finite_are_refused(
    dtype: torch.dtype, change: Callable[[torch.Tensor], torch.Tensor], base: Path, tmp_path: Path, runner: ModelRunner
) -> None:
    adapter = make_adapter(tmp_path / "a", base)
    rewritten(change, adapter)
    with pytest.raises(AdapterError, match="not finite") as refused:
        read_weights(verified(adapter, runner), dtype, CPU)
    assert refused.value.reason is AdapterReason.CORRUPT_WEIGHTS


def test_resident_weights_do_not_change_with_the_file(base: Path, tmp_path: Path, runner: ModelRunner) -> None:
    adapter = make_adapter(tmp_path / "a", base)
    weights = read_weights(verified(adapter, runner), torch.float32, CPU)
    before = {name: (a.clone(), b.clone()) for name, (a, b) in weights.modules.items()}
    file = adapter / WEIGHTS
    with file.open("r+b") as out:
        out.seek(file.stat().st_size // 4)
        out.write(bytes(file.stat().st_size - file.stat().st_size // 4))
    for name, pair in before.items():
        for held, expected in zip(weights.modules[name], pair, strict=True):
            assert torch.equal(held, expected)
