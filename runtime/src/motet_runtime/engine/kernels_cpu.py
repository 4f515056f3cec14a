"""The engine's own inner loops on a CPU, compiled by numba: attention of decode rows over paged keys and values, and
the low-rank products of many adapters.

Both are bound by memory, so both read each key, value and adapter weight once, where it lies: a batched product in
torch would first gather them into a padded copy, which costs more than the product (bench/kernels.py has the figures).
Prompts go through torch's flash attention instead, which is bound by arithmetic and runs at the speed of its GEMM.
Everything is float32. The compiled code is kept on disk, see `numba_cache_folder`.
"""

import functools
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

PRECOMPILED: Final = "MOTET_PRECOMPILED_KERNELS"
"""Names a folder of compiled kernels that came with the image (`precompile.py`); it need not be writable."""


def numba_cache_folder() -> Path:
    """Where compiled kernels are kept: beside other caches, or in scratch space where that cannot be written."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(os.environ.get("NUMBA_CACHE_DIR") or home / "motet" / "numba")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:
        folder = Path(tempfile.gettempdir()) / "motet-numba"
    precompiled = os.environ.get(PRECOMPILED)
    if precompiled and Path(precompiled).is_dir():
        # numba uses a folder only if it can write to it.
        shutil.copytree(precompiled, folder, dirs_exist_ok=True, copy_function=shutil.copyfile)
    return folder


os.environ["NUMBA_CACHE_DIR"] = str(numba_cache_folder())

import numpy as np  # noqa: E402 - numba reads its cache's place when it is imported
from numba import njit  # noqa: E402

_f32 = np.float32
_LOG2_E: Final = _f32(1.44269504088896341)
_LN2_HIGH: Final = _f32(0.693359375)
_LN2_LOW: Final = _f32(-2.12194440e-4)
_SMALLEST: Final = _f32(-87.0)
_P0, _P1, _P2, _P3, _P4, _P5 = (
    _f32(value)
    for value in (
        1.9875691500e-4,
        1.3981999507e-3,
        8.3334519073e-3,
        4.1665795894e-2,
        1.6666665459e-1,
        5.0000001201e-1,
    )
)
"""Cephes' expf: exp(x) = 2^k * exp(r), with a polynomial for r in +-ln(2)/2. The C library's is called once a number
and would take a third of the whole; this one the compiler turns into vector code."""
_ZERO: Final = _f32(0)
_ONE: Final = _f32(1)

# A row of a diverged adapter divides by zero: that must spoil its own numbers, not raise and end the step for all.
_jit: Any = functools.partial(njit, fastmath=True, nogil=True, cache=True, error_model="numpy")


@_jit()
def _exponentials(scores, count, bits, powers):  # type: ignore[no-untyped-def]
    """Replace scores by exp(score - highest); returns their sum and the highest. `powers` is `bits` seen as float32."""
    highest = scores[0]
    for p in range(count):
        highest = max(highest, scores[p])
    for p in range(count):
        x = max(scores[p] - highest, _SMALLEST)
        bits[p] = np.int32((np.int32(x * _LOG2_E - _f32(0.5)) + np.int32(127)) * np.int32(8388608))
    total = _ZERO
    for p in range(count):
        x = max(scores[p] - highest, _SMALLEST)
        k = _f32(np.int32(x * _LOG2_E - _f32(0.5)))
        r = x - k * _LN2_HIGH - k * _LN2_LOW
        y = ((((_P0 * r + _P1) * r + _P2) * r + _P3) * r + _P4) * r + _P5
        e = (y * r * r + r + _ONE) * powers[p]
        scores[p] = e
        total += e
    return total, highest


@functools.cache
def attend_rows(head_dim: int) -> Callable[..., None]:  # noqa: PLR0915 - a kernel cannot call out of its loops for free
    """The kernel for one head size, which as a constant makes it a third faster.

    Its arguments: query (rows, heads, head_dim); keys and values (kv_heads, slots, head_dim); tables (rows, blocks)
    int32; begin, end (rows,) int32, the positions that a row sees; block_size; scale; out (rows, heads, head_dim) and
    lse (rows, heads), the log of the sum of exponentials, both written. A row that sees nothing gets lse -inf.
    """
    dim = head_dim

    @_jit()
    def attend(  # type: ignore[no-untyped-def]  # noqa: PLR0912, PLR0915
        query, keys, values, tables, begin, end, block_size, scale, out, lse
    ):
        rows, heads, _ = query.shape
        kv_heads = keys.shape[0]
        group = heads // kv_heads
        longest = 1
        for row in range(rows):
            longest = max(longest, end[row] - begin[row])
        scores = np.empty((group, longest), np.float32)
        bits = np.empty(longest, np.int32)
        powers = bits.view(np.float32)
        for row in range(rows):
            first, last = begin[row], end[row]
            count = last - first
            if count <= 0:
                for head in range(heads):
                    lse[row, head] = -np.inf
                    for d in range(dim):
                        out[row, head, d] = _ZERO
                continue
            for kv_head in range(kv_heads):
                position = first
                while position < last:
                    offset = position % block_size
                    slot = tables[row, position // block_size] * block_size + offset
                    many = min(block_size - offset, last - position)
                    block = keys[kv_head, slot : slot + many]
                    for g in range(group):
                        q = query[row, kv_head * group + g]
                        s = scores[g, position - first : position - first + many]
                        p = 0
                        while p + 4 <= many:
                            a0 = _ZERO
                            a1 = _ZERO
                            a2 = _ZERO
                            a3 = _ZERO
                            k0, k1, k2, k3 = block[p], block[p + 1], block[p + 2], block[p + 3]
                            for d in range(dim):
                                x = q[d]
                                a0 += x * k0[d]
                                a1 += x * k1[d]
                                a2 += x * k2[d]
                                a3 += x * k3[d]
                            s[p] = a0 * scale
                            s[p + 1] = a1 * scale
                            s[p + 2] = a2 * scale
                            s[p + 3] = a3 * scale
                            p += 4
                        while p < many:
                            a0 = _ZERO
                            for d in range(dim):
                                a0 += q[d] * block[p, d]
                            s[p] = a0 * scale
                            p += 1
                    position += many
                for g in range(group):
                    s = scores[g]
                    total, highest = _exponentials(s, count, bits, powers)
                    lse[row, kv_head * group + g] = highest + np.log(total)
                    o = out[row, kv_head * group + g]
                    for d in range(dim):
                        o[d] = _ZERO
                    position = first
                    while position < last:
                        offset = position % block_size
                        slot = tables[row, position // block_size] * block_size + offset
                        many = min(block_size - offset, last - position)
                        block = values[kv_head, slot : slot + many]
                        base = position - first
                        p = 0
                        while p + 4 <= many:
                            w0, w1, w2, w3 = s[base + p], s[base + p + 1], s[base + p + 2], s[base + p + 3]
                            v0, v1, v2, v3 = block[p], block[p + 1], block[p + 2], block[p + 3]
                            for d in range(dim):
                                o[d] += w0 * v0[d] + w1 * v1[d] + w2 * v2[d] + w3 * v3[d]
                            p += 4
                        while p < many:
                            w0 = s[base + p]
                            for d in range(dim):
                                o[d] += w0 * block[p, d]
                            p += 1
                        position += many
                    inverse = _ONE / total
                    for d in range(dim):
                        o[d] *= inverse

    compiled: Callable[..., None] = attend
    return compiled


@_jit()
def add_low_rank(x, y, a, b, first, count, row, rank):  # type: ignore[no-untyped-def]
    """`y[t] += (x[t] @ a[rows].T) @ b[rows]` for the tokens t of each segment, with that segment's rows.

    x (tokens, in), y (tokens, out); a (rows, in) and b (rows, out) hold all adapters of one module, b scaled. Segment s
    is `count[s]` tokens from `first[s]` on, and uses `rank[s]` rows from `row[s]` on; rank 0 changes nothing.
    """
    width, out_width = x.shape[1], y.shape[1]
    most = 1
    for segment in range(first.shape[0]):
        most = max(most, rank[segment])
    h = np.empty(most, np.float32)
    for segment in range(first.shape[0]):
        r, s = rank[segment], row[segment]
        for token in range(first[segment], first[segment] + count[segment]):
            xt, yt = x[token], y[token]
            j = 0
            while j + 8 <= r:
                h0 = _ZERO
                h1 = _ZERO
                h2 = _ZERO
                h3 = _ZERO
                h4 = _ZERO
                h5 = _ZERO
                h6 = _ZERO
                h7 = _ZERO
                a0, a1, a2, a3 = a[s + j], a[s + j + 1], a[s + j + 2], a[s + j + 3]
                a4, a5, a6, a7 = a[s + j + 4], a[s + j + 5], a[s + j + 6], a[s + j + 7]
                for i in range(width):
                    v = xt[i]
                    h0 += v * a0[i]
                    h1 += v * a1[i]
                    h2 += v * a2[i]
                    h3 += v * a3[i]
                    h4 += v * a4[i]
                    h5 += v * a5[i]
                    h6 += v * a6[i]
                    h7 += v * a7[i]
                h[j], h[j + 1], h[j + 2], h[j + 3] = h0, h1, h2, h3
                h[j + 4], h[j + 5], h[j + 6], h[j + 7] = h4, h5, h6, h7
                j += 8
            while j < r:
                h0 = _ZERO
                for i in range(width):
                    h0 += xt[i] * a[s + j, i]
                h[j] = h0
                j += 1
            j = 0
            while j + 8 <= r:
                h0, h1, h2, h3 = h[j], h[j + 1], h[j + 2], h[j + 3]
                h4, h5, h6, h7 = h[j + 4], h[j + 5], h[j + 6], h[j + 7]
                b0, b1, b2, b3 = b[s + j], b[s + j + 1], b[s + j + 2], b[s + j + 3]
                b4, b5, b6, b7 = b[s + j + 4], b[s + j + 5], b[s + j + 6], b[s + j + 7]
                for i in range(out_width):
                    yt[i] += (
                        h0 * b0[i]
                        + h1 * b1[i]
                        + h2 * b2[i]
                        + h3 * b3[i]
                        + h4 * b4[i]
                        + h5 * b5[i]
                        + h6 * b6[i]
                        + h7 * b7[i]
                    )
                j += 8
            while j < r:
                h0 = h[j]
                for i in range(out_width):
                    yt[i] += h0 * b[s + j, i]
                j += 1
