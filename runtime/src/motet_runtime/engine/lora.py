"""Low-rank products of many adapters on one packed batch, each token with its own adapter.

For each linear module the rows of all adapters on the device lie in two stacks: a (rows, in) and b (rows, out), b
scaled and transposed. An adapter is a run of neighbouring rows (`slots.py`), a token without one has none. Nothing is
allocated when an adapter comes or goes: its rows are copied in beside the running batch.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from motet_api.artifact.targets import LinearShapes


@dataclass(frozen=True, slots=True)
class LoraSegment:
    """`count` tokens from `first` on use the adapter whose rows begin at `row`."""

    row: int
    first: int
    count: int


class LoraStacks:
    """The stacks of all modules, and the step's segments. `triton`: by the GPU's kernels.

    Raises:
        KeyError: (write) a module is unknown.
    """

    def __init__(self, shapes: LinearShapes, rows: int, dtype: torch.dtype, device: torch.device, triton: bool) -> None:
        self._triton = triton
        # The CPU's kernel computes in float32; there the stacks are written to only where adapters lie, so memory that
        # no adapter needs is not taken from the machine.
        kept = dtype if self._triton else torch.float32
        self._index = {name: index for index, name in enumerate(shapes)}
        self._a = [torch.empty((rows, width), dtype=kept, device=device) for _, width in shapes.values()]
        self._b = [torch.empty((rows, height), dtype=kept, device=device) for height, _ in shapes.values()]
        self._ranks = np.zeros((len(shapes), rows), np.int32)
        self._device = device
        self._most = [0] * len(shapes)
        self._segments: Any = None
        self._product: Any
        self._add: Callable[[int, torch.Tensor, torch.Tensor], None]
        if self._triton:
            from motet_runtime.engine import lora_triton

            self._lay_out, self._product = lora_triton.lay_out, lora_triton.add_low_rank
            self._add = self._add_by_triton
        else:
            from motet_runtime.engine import kernels_cpu

            self._product = kernels_cpu.add_low_rank
            self._add = self._add_on_cpu

    @staticmethod
    def bytes_per_row(shapes: LinearShapes, dtype: torch.dtype, device: torch.device) -> int:
        """Device memory that one row takes over all modules."""
        size = dtype.itemsize if device.type == "cuda" else 4
        return size * sum(height + width for height, width in shapes.values())

    def index(self, module: str) -> int:
        """A module's number, for `add`."""
        return self._index[module]

    def write(self, row: int, modules: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Copy an adapter's a (rank, in) and b (rank, out) of each module to the rows from `row` on."""
        self._ranks[:, row] = 0
        for name, (a, b) in modules.items():
            index, rank = self._index[name], a.shape[0]
            self._a[index][row : row + rank].copy_(a, non_blocking=True)
            self._b[index][row : row + rank].copy_(b, non_blocking=True)
            self._ranks[index, row] = rank

    def begin(self, segments: Iterable[LoraSegment]) -> None:
        """Set the step's segments, once for all modules."""
        listed = list(segments)
        if not listed:
            self._most = [0] * len(self._a)
            return
        row, first, count = (
            np.array([getattr(one, name) for one in listed], np.int32) for name in ("row", "first", "count")
        )
        ranks = np.ascontiguousarray(self._ranks[:, row])
        self._most = [int(most) for most in ranks.max(axis=1)]
        if self._triton:
            on_device = [self._on_device(part) for part in (first, count, row, ranks)]
            self._segments = (*on_device, self._lay_out([one.count for one in listed], self._device))
        else:
            self._segments = (first, count, row, ranks)

    def add(self, index: int, x: torch.Tensor, y: torch.Tensor) -> None:
        """Add every token's low-rank product of module `index` for inputs x (..., in) to y (..., out).

        The dimensions before the last, together, are the step's tokens: some models drop the first for some modules.
        """
        if self._most[index]:
            self._add(index, x.reshape(-1, x.shape[-1]), y.view(-1, y.shape[-1]))

    def _add_by_triton(self, index: int, x: torch.Tensor, y: torch.Tensor) -> None:
        first, count, row, ranks, tiles = self._segments
        a, b = self._a[index], self._b[index]
        self._product(x, y, a, b, first, count, row, ranks[index], self._most[index], tiles)

    def _add_on_cpu(self, index: int, x: torch.Tensor, y: torch.Tensor) -> None:
        first, count, row, ranks = self._segments
        a, b = self._a[index].numpy(), self._b[index].numpy()
        if y.dtype == torch.float32:
            self._product(x.contiguous().numpy(), y.numpy(), a, b, first, count, row, ranks[index])
            return
        products = torch.zeros(y.shape)
        self._product(x.float().contiguous().numpy(), products.numpy(), a, b, first, count, row, ranks[index])
        y += products.to(y.dtype)

    def _on_device(self, array: Any) -> torch.Tensor:
        host = torch.from_numpy(array)
        # A copy from memory that is not pinned waits until it is done.
        return host.pin_memory().to(self._device, non_blocking=True) if self._device.type == "cuda" else host
