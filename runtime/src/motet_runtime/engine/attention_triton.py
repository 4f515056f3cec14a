"""Attention over a paged key and value cache, as Triton kernels for CUDA.

Invariant: the host never waits for the device. What a kernel launch needs to know on the host (how many tiles there
are) comes from the plan's own integers, and the list of tiles is laid out once per step and serves every layer.

A row is one query token under one query head. The rows of a sequence that share a key head lie together in the order
(token, head of the group), so that a tile of rows reads each key and value once: for a token that is decoded the tile
is its group of heads, for a chunk of a prompt it is several tokens times the group.

Sources of the ideas: the softmax computed in one pass over tiles of keys is FlashAttention's (arXiv 2205.14135); keys
and values in blocks found through a table per sequence are PagedAttention's (arXiv 2309.06180). A sequence's keys are
not split over programs, so a few sequences with long contexts do not fill a large device. These kernels were tested in
Triton's interpreter, and compiled for CUDA; they were not run on a device.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]

_SHORT_ROWS: Final = 16
_LONG_ROWS: Final = 64
_NO_WINDOW: Final = 1 << 30
_LOG2_E: Final = 1.4426950408889634
# The interpreter's product of matrices multiplies the bit patterns of bfloat16.
_WIDEN: Final = tl.constexpr(triton.knobs.runtime.interpret)


@dataclass(frozen=True, slots=True)
class QueryTiles:
    """Tiles of a step for one number of heads per key head: each int32 (tiles, 2) of sequence and first row.

    Sequences of at most 16 rows are in `short`, so that decoded tokens do not pay for tiles as high as a chunk's.
    """

    group: int
    short: torch.Tensor
    long: torch.Tensor


def tile_list(rows: Sequence[int], height: int, device: torch.device) -> torch.Tensor:
    """Cut each item's rows into tiles: int32 (tiles, 2) of item and first row, copied without waiting for the device.

    The last rows come first: under a causal mask they have most to do, and would else be what a launch ends on.
    """
    pairs = [(item, row) for item, held in enumerate(rows) for row in reversed(range(0, held, height))]
    host = torch.tensor(pairs, dtype=torch.int32).reshape(-1, 2)
    # A copy from memory that is not pinned waits until it is done.
    host = host.pin_memory() if device.type == "cuda" else host
    return host.to(device, non_blocking=True)


def lay_out(counts_host: Sequence[int], group: int, device: torch.device) -> QueryTiles:
    """Lay out a step: `counts_host` is what `attend` gets as `count`, on the host; `group` is heads / kv_heads."""
    rows = [count * group for count in counts_host]
    short = [held if held <= _SHORT_ROWS else 0 for held in rows]
    long = [held if held > _SHORT_ROWS else 0 for held in rows]
    return QueryTiles(group, tile_list(short, _SHORT_ROWS, device), tile_list(long, _LONG_ROWS, device))


def store(
    key: torch.Tensor, value: torch.Tensor, key_cache: torch.Tensor, value_cache: torch.Tensor, slots: torch.Tensor
) -> None:
    """Write new keys and values (tokens, kv_heads, head_dim) into the caches (blocks, kv_heads, block_size, head_dim).

    `slots` (tokens,) is block * block_size + position in the block; a token whose slot is negative is not stored.
    The last dimension of each tensor is contiguous, and the caches' strides are the same (here and in `attend`).
    """
    assert key_cache.stride() == value_cache.stride()
    tokens, heads, dim = key.shape
    _store_kernel[(tokens, heads)](
        *(key, value, key_cache, value_cache, slots, key.stride()[:2], value.stride()[:2], key_cache.stride()[:3]),
        block_size=key_cache.shape[2],
        dim=dim,
        padded_dim=triton.next_power_of_2(dim),
        num_warps=1,
    )


def attend(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    tables: torch.Tensor,
    first: torch.Tensor,
    count: torch.Tensor,
    start: torch.Tensor,
    scale: float,
    window: int,
    tiles: QueryTiles,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Causal attention of queries (tokens, heads, head_dim) over their own sequences' cached keys; sums in float32.

    Args:
        query: float32, bfloat16 or float16, as the caches; the last dimension contiguous.
        key_cache: (blocks, kv_heads, block_size, head_dim); the queries' own keys are stored already.
        value_cache: as `key_cache`, strides included.
        tables: int32 (sequences, max_blocks), the blocks of each sequence; entries outside of what a sequence's
            queries can see are not read.
        first: (sequences,) offset of the sequence's first query among the tokens.
        count: (sequences,) number of its queries; may be 0.
        start: (sequences,) position of its first query; the context is start + count tokens.
        scale: what scores are multiplied by.
        window: a query at position p sees the keys p - window + 1 to p; 0 is no window.
        tiles: what `lay_out` made of the same counts.
        out: where to write (tokens, heads, head_dim), and what is returned; tokens of no sequence are left alone.
    """
    assert key_cache.stride() == value_cache.stride() and query.stride(2) == 1
    heads, dim = query.shape[1:]
    kv_heads, block_size = key_cache.shape[1:3]
    if heads != kv_heads * tiles.group:
        raise ValueError(f"the tiles are for {tiles.group} heads per key head, not for {heads} over {kv_heads}")
    out = query.new_empty(query.shape) if out is None else out
    padded_dim = max(16, triton.next_power_of_2(dim))
    # A tile of queries and, for each stage, one of keys and one of values fit the 99 KB of the smaller devices.
    row_bytes = padded_dim * query.element_size()
    keys = max(16, min(64, 16384 // row_bytes))
    for listed, height in ((tiles.short, _SHORT_ROWS), (tiles.long, _LONG_ROWS)):
        if len(listed) == 0:
            continue
        _attend_kernel[(len(listed), kv_heads)](
            *(query, key_cache, value_cache, out, tables, (first, count, start), listed),
            *(scale * _LOG2_E, window or _NO_WINDOW, tables.stride(0)),
            *(query.stride()[:2], key_cache.stride()[:3], out.stride()[:2]),
            block_size=block_size,
            group=tiles.group,
            dim=dim,
            padded_dim=padded_dim,
            height=height,
            keys=keys,
            num_warps=4,
            num_stages=1 if row_bytes > 512 else 2,
        )
    return out


@triton.jit  # type: ignore[untyped-decorator]
def _store_kernel(
    key: tl.tensor,
    value: tl.tensor,
    key_cache: tl.tensor,
    value_cache: tl.tensor,
    slots: tl.tensor,
    k_strides: tl.tuple,
    v_strides: tl.tuple,
    c_strides: tl.tuple,
    block_size: tl.constexpr,
    dim: tl.constexpr,
    padded_dim: tl.constexpr,
) -> None:
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    slot = tl.load(slots + token).to(tl.int64)
    if slot < 0:
        return
    dims = tl.arange(0, padded_dim)
    at = slot // block_size * c_strides[0] + head * c_strides[1] + slot % block_size * c_strides[2] + dims
    held = dims < dim
    key += token * k_strides[0] + head * k_strides[1]
    value += token * v_strides[0] + head * v_strides[1]
    tl.store(key_cache + at, tl.load(key + dims, mask=held), mask=held)
    tl.store(value_cache + at, tl.load(value + dims, mask=held), mask=held)


@triton.jit  # type: ignore[untyped-decorator]
def _attend_kernel(
    query: tl.tensor,
    key_cache: tl.tensor,
    value_cache: tl.tensor,
    out: tl.tensor,
    tables: tl.tensor,
    spans: tl.tuple,
    tiles: tl.tensor,
    scale_log2: tl.tensor,
    window: tl.tensor,
    table_row: tl.tensor,
    q_strides: tl.tuple,
    c_strides: tl.tuple,
    o_strides: tl.tuple,
    block_size: tl.constexpr,
    group: tl.constexpr,
    dim: tl.constexpr,
    padded_dim: tl.constexpr,
    height: tl.constexpr,
    keys: tl.constexpr,
) -> None:
    kv_head = tl.program_id(1)
    sequence = tl.load(tiles + 2 * tl.program_id(0))
    row_0 = tl.load(tiles + 2 * tl.program_id(0) + 1)
    first = tl.load(spans[0] + sequence).to(tl.int64)
    queries = tl.load(spans[1] + sequence).to(tl.int32)
    past = tl.load(spans[2] + sequence).to(tl.int32)

    row = row_0 + tl.arange(0, height)
    token = first + row // group
    head = kv_head * group + row % group
    position = past + row // group
    dims = tl.arange(0, padded_dim)
    in_dim = (dims < dim)[None, :]
    in_tile = (row < queries * group)[:, None] & in_dim
    q_at = (token * q_strides[0] + head * q_strides[1])[:, None] + dims[None, :]
    q = tl.load(query + q_at, mask=in_tile, other=0.0)

    top = tl.full((height,), float("-inf"), tl.float32)
    total = tl.zeros((height,), tl.float32)
    mixed = tl.zeros((height, padded_dim), tl.float32)
    # From the first key that the tile's first row sees to the last one that its last row sees.
    begin = tl.maximum(past + row_0 // group + 1 - window, 0)
    end = past + tl.minimum((row_0 + height - 1) // group + 1, queries)
    for at in range(begin, end, keys):
        column = at + tl.arange(0, keys)
        held = column < end
        block = tl.load(tables + sequence * table_row + column // block_size, mask=held, other=0).to(tl.int64)
        cell = block * c_strides[0] + kv_head * c_strides[1] + column % block_size * c_strides[2]
        cell = cell[:, None] + dims[None, :]
        in_keys = held[:, None] & in_dim
        k = tl.load(key_cache + cell, mask=in_keys, other=0.0)
        # What is not held is 0, as 0 times a number that is none would spoil the sum.
        v = tl.load(value_cache + cell, mask=in_keys, other=0.0)
        scores = dot(q, tl.trans(k)) * scale_log2
        seen = (column[None, :] <= position[:, None]) & (column[None, :] > position[:, None] - window)
        scores = tl.where(seen, scores, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, 1))
        # A row that has seen no key yet: the difference of two infinities is no number.
        shift = tl.where(new_top == float("-inf"), 0.0, new_top)
        weights = tl.exp2(scores - shift[:, None])
        fade = tl.exp2(top - shift)
        total = total * fade + tl.sum(weights, 1)
        mixed = mixed * fade[:, None] + dot(weights.to(v.dtype), v)
        top = new_top

    # Each row that is stored has seen its own key at least, so its total is not 0.
    mixed = mixed / total[:, None]
    o_at = (token * o_strides[0] + head * o_strides[1])[:, None] + dims[None, :]
    tl.store(out + o_at, mixed.to(out.dtype.element_ty), mask=in_tile)


@triton.jit  # type: ignore[untyped-decorator]
def dot(left: tl.tensor, right: tl.tensor) -> tl.tensor:
    """Product of two matrices of one type in float32."""
    if _WIDEN:
        left = left.to(tl.float32)
        right = right.to(tl.float32)
    # Not tf32, which keeps ten bits of a float32's mantissa; other types are not affected.
    return tl.dot(left, right, input_precision="ieee")
