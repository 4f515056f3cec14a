"""Attention over paged keys and values on a CPU.

Keys and values of a layer lie as (kv_heads, slots, head_dim), so that neighbouring blocks are one view. A step has up
to four parts, whose results are put together by their log-sum-exp (as in FlashAttention, arXiv 2205.14135):

- decode rows: our own kernel, which reads every block where it lies;
- a chunk's own tokens: torch's flash attention, causal, straight from the step; chunks of one length in one call;
- what came before a chunk: flash attention without a mask over its runs of neighbouring blocks;
- a prefix that several rows share (one transcript, many indicators): once for the queries of all of them.

Everything is computed in float32, whatever type the model has.
"""

from collections import defaultdict
from collections.abc import Sequence as Rows
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
from torch.nn import functional

from motet_runtime.engine import kernels_cpu
from motet_runtime.engine.blocks import runs
from motet_runtime.engine.packed import PackedRow

_flash: Final = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_MOST_RUNS: Final = 8
"""A past in more pieces than this is copied together first."""
_WORTH_SHARING: Final = 128
"""Shared tokens from which on one call for several rows is cheaper than each reading them."""


@dataclass(slots=True)
class _Shared:
    """Rows with a common prefix: the queries' places in the batch, and where the prefix lies."""

    queries: torch.Tensor
    runs: list[tuple[int, int]]


@dataclass(slots=True)
class _Step:
    """The layout of one step."""

    slots: torch.Tensor
    rows: Rows[PackedRow]
    decodes: int
    tables: np.ndarray[Any, Any]
    ends: np.ndarray[Any, Any]
    begins: np.ndarray[Any, Any]
    equal: list[tuple[int, int, int]]
    """Chunks of equal length side by side: (first token, chunks, tokens of each)."""
    pasts: list[tuple[slice, list[tuple[int, int]]]] = field(default_factory=list)
    shared: list[_Shared] = field(default_factory=list)
    longest: int = 0


class CpuAttention:
    """Keys and values of all sequences, and attention over them. Decode rows come first in every batch."""

    def __init__(self, layers: int, kv_heads: int, head_dim: int, blocks: int, block_size: int) -> None:
        shape = (kv_heads, blocks * block_size, head_dim)
        # Not written to until a block is used: memory that nobody uses is not taken from the machine.
        self._keys = [torch.empty(shape) for _ in range(layers)]
        self._values = [torch.empty(shape) for _ in range(layers)]
        self._block_size = block_size
        self._attend_rows = kernels_cpu.attend_rows(head_dim)
        self._step: _Step | None = None

    def begin(self, rows: Rows[PackedRow]) -> None:
        """Set the step's layout."""
        size = self._block_size
        slots = [self._slots(row, row.start, row.start + row.count) for row in rows]
        decoding = [row for row in rows if row.count == 1]
        assert list(rows[: len(decoding)]) == decoding, "decode rows come first"
        longest = max((len(row.blocks) for row in decoding), default=0)
        tables = np.zeros((len(decoding), longest), np.int32)
        for index, row in enumerate(decoding):
            tables[index, : len(row.blocks)] = row.blocks
        step = _Step(
            slots=torch.from_numpy(np.concatenate(slots)),
            rows=rows,
            decodes=len(decoding),
            tables=tables,
            ends=np.array([row.start + 1 for row in decoding], np.int32),
            begins=np.zeros(len(decoding), np.int32),
            equal=_equal_chunks(rows[len(decoding) :]),
            longest=max(row.start + row.count for row in rows),
        )
        sharing = self._find_shared(step)
        for index, row in enumerate(rows):
            if row.count > 1 and row.start > sharing[index]:
                first = sharing[index]
                past = runs(row.blocks[first // size : -(-row.start // size)], size)
                past[-1] = (past[-1][0], past[-1][1] - (-row.start) % size)
                step.pasts.append((slice(row.offset, row.offset + row.count), past))
        self._step = step

    def _slots(self, row: PackedRow, begin: int, end: int) -> np.ndarray[Any, Any]:
        positions = np.arange(begin, end)
        return np.asarray(row.blocks)[positions // self._block_size] * self._block_size + positions % self._block_size

    def _find_shared(self, step: _Step) -> list[int]:
        """Fill `step.shared`; returns for each row how many of its first tokens are covered by it."""
        size = self._block_size
        covered = [0] * len(step.rows)
        groups: dict[int, list[int]] = defaultdict(list)
        for index, row in enumerate(step.rows):
            if row.start >= size:
                groups[row.blocks[0]].append(index)
        for members in groups.values():
            if len(members) < 2:
                continue
            pasts = [list(step.rows[index].blocks[: step.rows[index].start // size]) for index in members]
            prefix = _common(min(pasts), max(pasts))
            tokens = len(prefix) * size
            if tokens < _WORTH_SHARING:
                continue
            queries = np.concatenate(
                [np.arange(row.offset, row.offset + row.count) for row in (step.rows[index] for index in members)]
            )
            step.shared.append(_Shared(torch.from_numpy(queries), runs(prefix, size)))
            for index in members:
                covered[index] = tokens
                if index < step.decodes:
                    step.begins[index] = tokens
        return covered

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, window: int
    ) -> torch.Tensor:
        """Store keys and values (tokens, kv_heads, head_dim), attend with query (tokens, heads, head_dim)."""
        step = self._step
        assert step is not None
        dtype = query.dtype
        query, key, value = query.float().contiguous(), key.float().contiguous(), value.float().contiguous()
        keys, values = self._keys[layer], self._values[layer]
        keys.index_copy_(1, step.slots, key.transpose(0, 1))
        values.index_copy_(1, step.slots, value.transpose(0, 1))
        out, lse = torch.empty_like(query), query.new_empty(query.shape[:2])
        windowed = 0 < window < step.longest
        if step.decodes:
            rows = slice(0, step.decodes)
            begins = np.maximum(step.ends - window, 0) if windowed else step.begins
            self._attend_rows(
                query[rows].numpy(),
                keys.numpy(),
                values.numpy(),
                step.tables,
                begins,
                step.ends,
                self._block_size,
                np.float32(scale),
                out[rows].numpy(),
                lse[rows].numpy(),
            )
        if windowed:
            self._attend_windowed(keys, values, query, out, scale, window)
            return out.to(dtype)
        for first, chunks, count in step.equal:
            span = slice(first, first + chunks * count)
            q, k, v = (
                tensor[span].view(chunks, count, -1, tensor.shape[-1]).transpose(1, 2) for tensor in (query, key, value)
            )
            o, sums = _flash(q, k, v, 0.0, True, scale=scale)
            out[span] = o.transpose(1, 2).flatten(0, 1)
            lse[span] = sums.transpose(1, 2).flatten(0, 1)
        for span, past in step.pasts:
            for k, v in self._pieces(keys, values, past):
                o, sums = _flash(query[span].transpose(0, 1)[None], k, v, 0.0, False, scale=scale)
                merged = _merged(out[span], lse[span], o[0].transpose(0, 1), sums[0].transpose(0, 1))
                out[span], lse[span] = merged
        for group in step.shared:
            q = query[group.queries].transpose(0, 1)[None]
            for k, v in self._pieces(keys, values, group.runs):
                o, sums = _flash(q, k, v, 0.0, False, scale=scale)
                merged = _merged(out[group.queries], lse[group.queries], o[0].transpose(0, 1), sums[0].transpose(0, 1))
                out[group.queries], lse[group.queries] = merged
        return out.to(dtype)

    def _pieces(
        self, keys: torch.Tensor, values: torch.Tensor, past: list[tuple[int, int]]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values (1, kv_heads, tokens, head_dim) of each run: views, or one copy of many short runs."""
        if len(past) <= _MOST_RUNS:
            return [(keys[None, :, begin:end], values[None, :, begin:end]) for begin, end in past]
        slots = torch.from_numpy(np.concatenate([np.arange(begin, end) for begin, end in past]))
        return [(keys.index_select(1, slots)[None], values.index_select(1, slots)[None])]

    def _attend_windowed(
        self,
        keys: torch.Tensor,
        values: torch.Tensor,
        query: torch.Tensor,
        out: torch.Tensor,
        scale: float,
        window: int,
    ) -> None:
        """Chunks of a layer with a sliding window: each over what its tokens can see, with a mask."""
        assert self._step is not None
        for row in self._step.rows[self._step.decodes :]:
            end = row.start + row.count
            begin = max(0, row.start - window + 1)
            slots = torch.from_numpy(self._slots(row, begin, end))
            place = torch.arange(begin, end)
            position = torch.arange(row.start, end)[:, None]
            mask = (place <= position) & (place > position - window)
            span = slice(row.offset, row.offset + row.count)
            attended = functional.scaled_dot_product_attention(
                query[span].transpose(0, 1)[None],
                keys.index_select(1, slots)[None],
                values.index_select(1, slots)[None],
                attn_mask=mask,
                scale=scale,
                enable_gqa=True,
            )
            out[span] = attended[0].transpose(0, 1)


def _common(one: list[int], other: list[int]) -> list[int]:
    """The common beginning of two lists; of the least and the greatest of many, it is that of all."""
    length = next((at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), None)
    return one[: min(len(one), len(other)) if length is None else length]


def _equal_chunks(rows: Rows[PackedRow]) -> list[tuple[int, int, int]]:
    equal: list[tuple[int, int, int]] = []
    for row in rows:
        if equal and equal[-1][2] == row.count:
            first, chunks, count = equal[-1]
            equal[-1] = (first, chunks + 1, count)
        else:
            equal.append((row.offset, 1, row.count))
    return equal


def _merged(
    out: torch.Tensor, lse: torch.Tensor, other: torch.Tensor, other_lse: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention over two parts of a past from that over each: out (tokens, heads, head_dim), lse (tokens, heads)."""
    both = torch.logaddexp(lse, other_lse)
    return out * (lse - both).exp()[..., None] + other * (other_lse - both).exp()[..., None], both
