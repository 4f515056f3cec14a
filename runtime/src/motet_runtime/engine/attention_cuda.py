"""Attention over paged keys and values on a GPU: the step's layout is copied to it once, and each layer is two kernels.

A layer's keys and values lie as (blocks, kv_heads, block_size, head_dim), in the model's own type. Nothing here waits
for the device.
"""

from collections.abc import Sequence as Rows
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from motet_runtime.engine import attention_triton
from motet_runtime.engine.packed import PackedRow


@dataclass(frozen=True, slots=True)
class _Step:
    """The layout of one step, on the device."""

    slots: torch.Tensor
    tables: torch.Tensor
    first: torch.Tensor
    count: torch.Tensor
    start: torch.Tensor
    tiles: attention_triton.QueryTiles


class CudaAttention:
    """Keys and values of all sequences, and attention over them. `group`: query heads that share one of keys."""

    def __init__(
        self,
        layers: int,
        kv_heads: int,
        head_dim: int,
        blocks: int,
        block_size: int,
        group: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        shape = (blocks, kv_heads, block_size, head_dim)
        self._keys = [torch.empty(shape, dtype=dtype, device=device) for _ in range(layers)]
        self._values = [torch.empty(shape, dtype=dtype, device=device) for _ in range(layers)]
        self._block_size = block_size
        self._group = group
        self._device = device
        self._step: _Step | None = None

    def begin(self, rows: Rows[PackedRow]) -> None:
        """Set the step's layout."""
        size = self._block_size
        tables = np.zeros((len(rows), max(len(row.blocks) for row in rows)), np.int32)
        slots = []
        for index, row in enumerate(rows):
            tables[index, : len(row.blocks)] = row.blocks
            positions = np.arange(row.start, row.start + row.count)
            slots.append(tables[index, positions // size].astype(np.int64) * size + positions % size)
        first, count, start = (
            self._on_device(np.array([getattr(row, name) for row in rows], np.int32))
            for name in ("offset", "count", "start")
        )
        tiles = attention_triton.lay_out([row.count for row in rows], self._group, self._device)
        self._step = _Step(self._on_device(np.concatenate(slots)), self._on_device(tables), first, count, start, tiles)

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, window: int
    ) -> torch.Tensor:
        """Store keys and values (tokens, kv_heads, head_dim), attend with query (tokens, heads, head_dim)."""
        step = self._step
        assert step is not None
        keys, values = self._keys[layer], self._values[layer]
        attention_triton.store(key, value, keys, values, step.slots)
        return attention_triton.attend(
            query, keys, values, step.tables, step.first, step.count, step.start, scale, window, step.tiles
        )

    def _on_device(self, array: np.ndarray[Any, Any]) -> torch.Tensor:
        host = torch.from_numpy(array)
        # A copy from memory that is not pinned waits until it is done.
        return host.pin_memory().to(self._device, non_blocking=True) if self._device.type == "cuda" else host
