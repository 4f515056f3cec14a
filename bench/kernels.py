"""The engine's CPU kernels against the ways that torch offers, at the shapes of model M; bench/results/kernels.json.

One thread, float32, medians of CPU seconds in which the variants take turns. `linear_*`: weights packed for oneDNN over
torch's own product. `attention_*`: our kernel over pages against gathering them for torch's attention. `low_rank_*`:
our kernel against a batched product of gathered weights, and against two products an adapter. Run it as `make bench`.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch.nn import functional

from bench.results import write
from motet_runtime.engine import kernels_cpu
from motet_runtime.engine.linear import ServedLinear

HIDDEN, INTERMEDIATE, HEADS, HEAD_DIM, LAYERS = 768, 2048, 12, 64, 12
ROWS, RANK, CONTEXT, BLOCK = 64, 8, 96, 16
ROUNDS = 15


def seconds(variants: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median CPU seconds of each, in turns."""
    spent: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(ROUNDS + 2):
        for name, work in variants.items():
            started = time.process_time()
            work()
            spent[name].append(time.process_time() - started)
    # The first rounds compile and fill caches.
    return {name: statistics.median(rows[2:]) for name, rows in spent.items()}


def linear() -> dict[str, float]:
    """Packed weights against torch's own, for the largest of M's modules, at several numbers of tokens."""
    plain = torch.nn.Linear(HIDDEN, INTERMEDIATE, bias=False).requires_grad_(False)
    packed = ServedLinear(plain)
    with torch.no_grad():
        packed.pack()
    figures = {}
    for tokens in (1, 8, 64, 512):
        x = torch.randn(1, tokens, HIDDEN)
        times = seconds({"plain": partial(plain, x), "packed": partial(packed, x)})
        figures[f"linear_{tokens}_speedup"] = round(times["plain"] / times["packed"], 2)
    return figures


def attention() -> dict[str, float]:
    """A step of 64 answers over all of M's layers."""
    pages = ROWS * CONTEXT // BLOCK
    caches = [
        (torch.randn(HEADS, pages * BLOCK, HEAD_DIM), torch.randn(HEADS, pages * BLOCK, HEAD_DIM))
        for _ in range(LAYERS)
    ]
    tables = np.random.default_rng(0).permutation(pages).reshape(ROWS, -1).astype(np.int32)
    slots = torch.from_numpy((tables[:, :, None] * BLOCK + np.arange(BLOCK)).reshape(-1)).long()
    query, out, lse = torch.randn(ROWS, HEADS, HEAD_DIM), torch.empty(ROWS, HEADS, HEAD_DIM), torch.empty(ROWS, HEADS)
    begins, ends = np.zeros(ROWS, np.int32), np.full(ROWS, CONTEXT, np.int32)
    attend = kernels_cpu.attend_rows(HEAD_DIM)
    scale = np.float32(HEAD_DIM**-0.5)

    def ours() -> None:
        for keys, values in caches:
            attend(
                *(query.numpy(), keys.numpy(), values.numpy(), tables, begins, ends),
                *(BLOCK, scale, out.numpy(), lse.numpy()),
            )

    def gathered() -> None:
        for cached in caches:
            k, v = (part.index_select(1, slots).view(HEADS, ROWS, CONTEXT, -1).transpose(0, 1) for part in cached)
            functional.scaled_dot_product_attention(query[:, :, None], k, v)

    times = seconds({"ours": ours, "gathered": gathered})
    return {
        "attention_over_gather": round(times["gathered"] / times["ours"], 2),
        "attention_step_ms": round(1000 * times["ours"], 1),
    }


def low_rank(segments: int, count: int) -> dict[str, float]:
    """Products of `segments` adapters over `count` tokens each, for the 48 modules that q, k, v and o are in M."""
    modules = [(torch.randn(ROWS * RANK, HIDDEN), torch.randn(ROWS * RANK, HIDDEN)) for _ in range(4 * LAYERS)]
    x, y = torch.randn(segments * count, HIDDEN), torch.zeros(segments * count, HIDDEN)
    first, counts = (np.arange(segments) * count).astype(np.int32), np.full(segments, count, np.int32)
    rows, ranks = (np.arange(segments) * RANK).astype(np.int32), np.full(segments, RANK, np.int32)
    chosen = torch.arange(segments)
    spans = [slice(at * count, (at + 1) * count) for at in range(segments)]
    places = [slice(at * RANK, (at + 1) * RANK) for at in range(segments)]

    def ours() -> None:
        for a, b in modules:
            kernels_cpu.add_low_rank(x.numpy(), y.numpy(), a.numpy(), b.numpy(), first, counts, rows, ranks)

    def batched() -> None:
        batch = x.view(segments, count, HIDDEN)
        for a, b in modules:
            down, up = (part.view(-1, RANK, HIDDEN)[chosen] for part in (a, b))
            y.view(segments, count, HIDDEN).baddbmm_(batch @ down.transpose(1, 2), up)

    def each() -> None:
        for a, b in modules:
            for span, place in zip(spans, places, strict=True):
                y[span].addmm_(x[span] @ a[place].T, b[place])

    times = seconds({"ours": ours, "batched": batched, "each": each})
    name = f"low_rank_{segments}x{count}"
    return {
        f"{name}_over_batched": round(times["batched"] / times["ours"], 2),
        f"{name}_over_each": round(times["each"] / times["ours"], 2),
        f"{name}_step_ms": round(1000 * times["ours"], 1),
    }


def main() -> None:
    """Measure, print and write bench/results/kernels.json."""
    torch.set_num_threads(1)
    with torch.inference_mode():
        figures = linear() | attention()
        for segments, count in ((64, 1), (32, 16), (8, 64), (1, 512)):
            figures |= low_rank(segments, count)
    write("kernels", figures, "one thread")


if __name__ == "__main__":
    main()
