"""One row's fault is that row's alone: the rows beside it, and those after it, get what they get without it."""

from pathlib import Path

import pytest
import torch

from motet_runtime.engine.plan import SlotLoad
from motet_runtime.engine.sequence import Sequence
from tests.models import make_adapter, make_classifier, make_tiny_llama
from tests.runtime.engine_runs import Engine, answers, load_engine
from tests.runtime.peft_reference import PeftReference

PROMPT = list(range(40, 80))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("rows") / "base")


@pytest.fixture(scope="module")
def engine(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("adapters")
    paths = {
        "well": make_adapter(folder / "well", base, targets="all-linear", seed=1),
        "overflows": make_adapter(folder / "overflows", base, targets="all-linear", scale=1e18, seed=2),
        "classes": make_classifier(folder / "classes", base, labels=3),
    }
    return load_engine(base, folder / "store", paths, blocks=64)


@pytest.fixture(scope="module")
def reference(base: Path, engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> PeftReference:
    return PeftReference(base, {"well": make_adapter(tmp_path_factory.mktemp("a"), base, targets="all-linear", seed=1)})


def beside(engine: Engine) -> list[Sequence]:
    return [engine.sequence(PROMPT[at:], owner, 6) for owner in ("well", None) for at in (0, 11, 39)]


def check(reference: PeftReference, sequences: list[Sequence]) -> None:
    for one in sequences:
        assert len(one.output) == one.params.max_new_tokens
        reference.check_greedy(one.adapter.id if one.adapter else None, one.prompt, one.output)


@pytest.mark.parametrize("sample", [False, True], ids=["greedy", "sampling"])
@pytest.mark.parametrize("tokens", [512, 16])
def test_a_row_whose_numbers_are_none_fails_alone(
    engine: Engine, reference: PeftReference, sample: bool, tokens: int
) -> None:
    run = engine.run(max_step_tokens=tokens)
    well = beside(engine)
    ill = [engine.sequence(PROMPT[:length], "overflows", 6, sample=sample) for length in (40, 1, 17)]
    run.add(*well[:3], *ill, *well[3:])
    run.finish()
    assert {failed.sequence for failed in run.failures} == set(ill)
    assert all("not finite" in failed.error for failed in run.failures)
    check(reference, well)


def test_what_it_leaves_behind_in_blocks_and_slots_harms_nobody(engine: Engine, reference: PeftReference) -> None:
    run = engine.run(blocks=10, slots=1, rows=8)
    for _ in range(3):
        run.add(engine.sequence(PROMPT * 3, "overflows", 6))
        run.finish()
        well = beside(engine)
        run.add(*well)
        run.finish()
        check(reference, well)
    assert len(run.failures) == 3


def test_classes_that_are_not_finite_fail_their_row(engine: Engine, reference: PeftReference) -> None:
    run = engine.run()
    copy = run.copy

    def copy_spoilt(load: SlotLoad) -> None:
        copy(load)
        if load.adapter.head_labels:
            engine.loaded.runner.write_adapter(
                load.adapter.digest, load.row, {}, (torch.full((3, 64), torch.inf), None)
            )

    run.copy = copy_spoilt
    well, ill = beside(engine), engine.sequence(PROMPT, "classes")
    run.add(ill, *well)
    run.finish()
    assert [failed.sequence for failed in run.failures] == [ill]
    assert "classes are not finite" in run.failures[0].error
    check(reference, well)


def test_a_smaller_adapter_in_the_rows_of_a_larger_one(base: Path, tmp_path: Path) -> None:
    """What the larger one left, in rows and modules that the smaller does not have, has no effect."""
    paths = {
        "large": make_adapter(tmp_path / "large", base, rank=16, targets="all-linear", seed=1),
        "small": make_adapter(tmp_path / "small", base, rank=3, targets=("q_proj",), seed=2),
    }
    engine, reference = load_engine(base, tmp_path / "store", paths), PeftReference(base, paths)
    run = engine.run(slots=1, rows=16)
    for owner in ("large", "small", "large", "small", None):
        one = engine.sequence(PROMPT, owner, 5)
        answers(run, [one])
        reference.check_greedy(owner, PROMPT, one.output)
    assert len(run.loads) == 4


def test_an_adapter_that_is_served_does_not_change_with_its_files(base: Path, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a", base, targets="all-linear", seed=3)
    engine = load_engine(base, tmp_path / "store", {"a": folder})
    first = answers(engine.run(), [engine.sequence(PROMPT, "a", 5)])
    file = folder / "adapter_model.safetensors"
    file.write_bytes(bytes(file.stat().st_size))
    assert answers(engine.run(), [engine.sequence(PROMPT, "a", 5)]) == first
