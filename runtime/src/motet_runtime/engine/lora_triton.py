"""Low-rank products of many adapters on a packed batch, as Triton kernels for CUDA.

The adapters' rows of one linear module are stacked in one tensor, whatever their ranks, and each segment of tokens
names its rows. One launch shrinks every segment's tokens to their adapter's rank, one expands them; a program whose
tile of 16 rank rows lies beyond its segment's rank ends at once, so a small rank does not pay for a large one.

Source of the idea: Punica's segmented gather matrix-vector product (arXiv 2310.18547).

These kernels were tested in Triton's interpreter, and compiled for CUDA; they were not run on a device.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]

from motet_runtime.engine.attention_triton import dot, tile_list

_RANKS: Final = 16
_FEW_TOKENS: Final = 16
_MANY_TOKENS: Final = 64
_STEP: Final = 64
_OUTPUTS: Final = 64
_MAX_SPLITS: Final = 8
_LEAST_PER_SPLIT: Final = 512


@dataclass(frozen=True, slots=True)
class SegmentTiles:
    """Tiles of a step: int32 (tiles, 2) of segment and its first token in the tile, and the tokens that a tile has."""

    listed: torch.Tensor
    height: int


def lay_out(counts_host: Sequence[int], device: torch.device) -> SegmentTiles:
    """Lay out a step, once for all modules: `counts_host` is what `add_low_rank` gets as `count`, known to the host.

    Give the count 0 to a segment without an adapter, and it costs nothing.
    """
    height = _FEW_TOKENS if max(counts_host, default=0) <= _FEW_TOKENS else _MANY_TOKENS
    return SegmentTiles(tile_list(counts_host, height, device), height)


def add_low_rank(
    x: torch.Tensor,
    y: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    first: torch.Tensor,
    count: torch.Tensor,
    row: torch.Tensor,
    rank: torch.Tensor,
    max_rank: int,
    tiles: SegmentTiles,
) -> None:
    """In place, for each token t of each segment: `y[t] += (x[t] @ a[rows].T) @ b[rows]`, sums in float32.

    Args:
        x: (tokens, in); the last dimension of each matrix must be contiguous, and all four are of one type.
        y: (tokens, out); tokens of no segment are left alone.
        a: (rows, in), the rows of all adapters of one linear module.
        b: (rows, out), scaled and transposed already.
        first: (segments,) offset of the segment's first token. Segments do not overlap.
        count: (segments,) number of its tokens.
        row: (segments,) its adapter's first row in `a` and `b`.
        rank: (segments,) number of its adapter's rows; 0 changes nothing.
        max_rank: no rank is larger; known to the host, and not checked against `rank`.
        tiles: what `lay_out` made of the same counts.
    """
    assert x.stride(1) == y.stride(1) == a.stride(1) == b.stride(1) == 1
    rank_tiles = triton.cdiv(max_rank, _RANKS)
    listed = len(tiles.listed)
    if listed == 0 or rank_tiles == 0:
        return
    tokens, width = x.shape
    outputs = y.shape[1]
    # With few tokens there are too few programs to read `a` at the memory's speed. The parts are written side by side
    # and added up in one order, so that an answer does not depend on which program ends first.
    splits = 1
    if tiles.height == _FEW_TOKENS:
        splits = min(_MAX_SPLITS, triton.cdiv(width, _LEAST_PER_SPLIT))
    per_split = triton.cdiv(width, splits * _STEP) * _STEP
    hidden = x.new_empty((splits, tokens, rank_tiles * _RANKS), dtype=torch.float32)
    _shrink_kernel[(listed, rank_tiles, splits)](
        *(x, a, hidden, first, count, row, rank, tiles.listed, width, per_split),
        *(x.stride(0), a.stride(0), *hidden.stride()[:2]),
        height=tiles.height,
        ranks=_RANKS,
        step=_STEP,
        num_warps=4,
        num_stages=2,
    )
    _expand_kernel[(listed, triton.cdiv(outputs, _OUTPUTS))](
        *(hidden, b, y, first, count, row, rank, tiles.listed, outputs),
        *(*hidden.stride()[:2], b.stride(0), y.stride(0)),
        splits=splits,
        height=tiles.height,
        ranks=_RANKS,
        width=_OUTPUTS,
        num_warps=4,
        num_stages=2,
    )


@triton.jit  # type: ignore[untyped-decorator]
def _shrink_kernel(
    x: tl.tensor,
    a: tl.tensor,
    hidden: tl.tensor,
    first: tl.tensor,
    count: tl.tensor,
    row: tl.tensor,
    rank: tl.tensor,
    tiles: tl.tensor,
    width: tl.tensor,
    per_split: tl.tensor,
    x_token: tl.tensor,
    a_row: tl.tensor,
    h_split: tl.tensor,
    h_token: tl.tensor,
    height: tl.constexpr,
    ranks: tl.constexpr,
    step: tl.constexpr,
) -> None:
    """hidden[split, token, rank row] = the split's part of x @ a.T; rank rows past the segment's rank are 0."""
    segment = tl.load(tiles + 2 * tl.program_id(0))
    rank_row = tl.program_id(1) * ranks + tl.arange(0, ranks)
    split = tl.program_id(2)
    held_ranks = tl.load(rank + segment).to(tl.int32)
    if tl.program_id(1) * ranks >= held_ranks:
        return
    place = tl.load(tiles + 2 * tl.program_id(0) + 1) + tl.arange(0, height)
    in_segment = (place < tl.load(count + segment).to(tl.int32))[:, None]
    token = tl.load(first + segment).to(tl.int64) + place
    a_at = (tl.load(row + segment).to(tl.int64) + rank_row) * a_row

    total = tl.zeros((height, ranks), tl.float32)
    begin = split * per_split
    end = tl.minimum(begin + per_split, width)
    for at in range(begin, end, step):
        column = at + tl.arange(0, step)
        in_split = (column < end)[None, :]
        x_part = tl.load(x + token[:, None] * x_token + column[None, :], mask=in_segment & in_split, other=0.0)
        in_rank = (rank_row < held_ranks)[:, None]
        a_part = tl.load(a + a_at[:, None] + column[None, :], mask=in_rank & in_split, other=0.0)
        total += dot(x_part, tl.trans(a_part))
    tl.store(hidden + split * h_split + token[:, None] * h_token + rank_row[None, :], total, mask=in_segment)


@triton.jit  # type: ignore[untyped-decorator]
def _expand_kernel(
    hidden: tl.tensor,
    b: tl.tensor,
    y: tl.tensor,
    first: tl.tensor,
    count: tl.tensor,
    row: tl.tensor,
    rank: tl.tensor,
    tiles: tl.tensor,
    outputs: tl.tensor,
    h_split: tl.tensor,
    h_token: tl.tensor,
    b_row: tl.tensor,
    y_token: tl.tensor,
    splits: tl.constexpr,
    height: tl.constexpr,
    ranks: tl.constexpr,
    width: tl.constexpr,
) -> None:
    """y[token] += hidden[:, token].sum(0) @ b, over the segment's rank rows."""
    segment = tl.load(tiles + 2 * tl.program_id(0))
    held_ranks = tl.load(rank + segment).to(tl.int32)
    if held_ranks == 0:
        return
    place = tl.load(tiles + 2 * tl.program_id(0) + 1) + tl.arange(0, height)
    in_segment = (place < tl.load(count + segment).to(tl.int32))[:, None]
    token = tl.load(first + segment).to(tl.int64) + place
    row_0 = tl.load(row + segment).to(tl.int64)
    column = tl.program_id(1) * width + tl.arange(0, width)
    in_outputs = (column < outputs)[None, :]

    total = tl.zeros((height, width), tl.float32)
    for at in range(0, held_ranks, ranks):
        rank_row = at + tl.arange(0, ranks)
        h_at = token[:, None] * h_token + rank_row[None, :]
        h_part = tl.zeros((height, ranks), tl.float32)
        for split in tl.static_range(splits):
            h_part += tl.load(hidden + split * h_split + h_at, mask=in_segment, other=0.0)
        in_rank = (rank_row < held_ranks)[:, None]
        b_at = (row_0 + rank_row)[:, None] * b_row + column[None, :]
        b_part = tl.load(b + b_at, mask=in_rank & in_outputs, other=0.0)
        total += dot(h_part.to(b_part.dtype), b_part)
    y_at = y + token[:, None] * y_token + column[None, :]
    mask = in_segment & in_outputs
    total += tl.load(y_at, mask=mask, other=0.0).to(tl.float32)
    tl.store(y_at, total.to(y.dtype.element_ty), mask=mask)
