"""What adapters cost: nothing where there are none, one product a module however many, the same for each that comes."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from motet_runtime.engine import kernels_cpu
from motet_runtime.engine.lora import LoraSegment, LoraStacks

SHAPES = {"q": (8, 8), "v": (4, 8)}
RANK = 2
X, Y = torch.ones(12, 8), torch.zeros(12, 8)


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[int]]]:
    """The first row of each segment, for every product that is computed."""
    seen: list[list[int]] = []

    def count(x: Any, y: Any, a: Any, b: Any, first: Any, tokens: Any, row: np.ndarray[Any, Any], ranks: Any) -> None:
        seen.append(row.tolist())

    monkeypatch.setattr(kernels_cpu, "add_low_rank", count)
    yield seen


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps every operation, with how many numbers it writes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[tuple[str, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.seen.append((str(func), made.numel() if isinstance(made, torch.Tensor) else 0))
        return made


def stacks() -> LoraStacks:
    return LoraStacks(SHAPES, rows=256, dtype=torch.float32, device=torch.device("cpu"), triton=False)


def weights(fill: float, *names: str) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """An adapter of some modules."""
    return {
        name: (torch.full((RANK, SHAPES[name][1]), fill), torch.full((RANK, SHAPES[name][0]), fill)) for name in names
    }


def test_a_step_of_the_base_alone_computes_no_product(products: list[list[int]]) -> None:
    held = stacks()
    for number in range(8):
        held.write(number * RANK, weights(number, "q", "v"))
    held.begin([LoraSegment(0, 0, 12)])
    held.add(held.index("q"), X, Y)
    assert len(products) == 1
    held.begin([])
    held.add(held.index("q"), X, Y)
    assert len(products) == 1, "adapters that are loaded cost those nothing who do not name them"


def test_a_module_that_no_adapter_of_the_step_changes_has_no_product(products: list[list[int]]) -> None:
    held = stacks()
    held.write(0, weights(1, "q", "v"))
    held.write(RANK, weights(1, "q"))
    held.begin([LoraSegment(RANK, 0, 12)])
    held.add(held.index("v"), X, Y[:, :4])
    assert products == []


def test_a_mixed_step_is_one_product_a_module(products: list[list[int]]) -> None:
    held = stacks()
    for number in range(12):
        held.write(number * RANK, weights(number, "q"))
    held.begin([LoraSegment(number * RANK, number, 1) for number in range(12)])
    held.add(held.index("q"), X, Y)
    assert products == [[number * RANK for number in range(12)]]


def test_the_hundredth_adapter_is_written_by_the_operations_of_the_first() -> None:
    held, costs = stacks(), []
    for number in range(100):
        adapter = weights(number, "q", "v")
        with Operations() as operations:
            held.write(number * RANK, adapter)
        costs.append(operations.seen)
    assert costs[0]
    assert all(cost == costs[0] for cost in costs)
