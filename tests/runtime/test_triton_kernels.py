"""The Triton kernels equal plain torch in Triton's interpreter, and compile for CUDA into what its devices can hold.

Both need a process of their own: Triton settles whether it interprets when it is first imported.
"""

import os
import random
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import pytest
import torch

CPU = torch.device("cpu")
TOLERANCE = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}
KERNELS = {"_store_kernel", "_attend_kernel", "_shrink_kernel", "_expand_kernel"}
SHARED_MEMORY = 99 * 1024
"""Bytes that one program may have on compute capability 8.6, the least among the devices that know bfloat16."""


def enter(environment: dict[str, str]) -> None:
    """Set a child process up, before anything in it imports Triton."""
    os.environ.update(environment)
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def interpreter() -> Iterator[Executor]:
    with ProcessPoolExecutor(1, get_context("spawn"), enter, ({"TRITON_INTERPRET": "1"},)) as pool:
        yield pool


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Executor]:
    environment = {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton"))}
    with ProcessPoolExecutor(1, get_context("spawn"), enter, (environment,)) as pool:
        yield pool


@dataclass(frozen=True)
class Attention:
    """`rows` is (start, count) of each sequence."""

    rows: tuple[tuple[int, int], ...]
    heads: tuple[int, int] = (9, 3)
    dim: int = 64
    block_size: int = 16
    window: int = 0
    dtype: torch.dtype = torch.float32
    scale: float = 0.125


DECODE = ((0, 1), (15, 1), (16, 1), (70, 1))
MIXED = ((33, 1), (0, 40), (21, 30), (64, 1), (5, 0), (3, 5))
ATTENTION = {
    "decode": Attention(DECODE),
    "one prompt": Attention(((0, 50),)),
    "a prompt's middle": Attention(((37, 29),)),
    "mixed": Attention(MIXED),
    "mixed, head 80": Attention(MIXED, heads=(4, 2), dim=80, block_size=8),
    "mixed, window": Attention(MIXED, window=20),
    "window, fewer keys than queries in a tile": Attention(((3, 50),), heads=(1, 1), dim=80, window=5),
    "window of one": Attention(DECODE, window=1),
    "window wider than all": Attention(DECODE, window=500),
    "one head for each": Attention(((9, 1), (2, 19)), heads=(2, 2), dim=16),
    "many heads for one": Attention(((9, 1), (0, 3)), heads=(20, 1), dim=32),
    "uneven blocks": Attention(((7, 11), (13, 1)), dim=24, block_size=5),
    "large scores": Attention(((40, 1), (0, 30)), scale=6.0),
    "bfloat16": Attention(MIXED, dtype=torch.bfloat16),
    "bfloat16, head 80, window": Attention(((50, 1), (11, 20)), (6, 2), 80, window=9, dtype=torch.bfloat16),
    "float16": Attention(((40, 1), (11, 20)), dtype=torch.float16),
}


def some_attention(seed: int) -> Attention:
    rng = random.Random(seed)
    kv_heads, group = rng.randint(1, 3), rng.randint(1, 6)
    return Attention(
        rows=tuple((rng.randint(0, 40), rng.choice((0, 1, 1, rng.randint(2, 30)))) for _ in range(rng.randint(1, 4))),
        heads=(kv_heads * group, kv_heads),
        dim=rng.choice((16, 40, 64, 80)),
        block_size=rng.choice((4, 16, 32)),
        window=rng.choice((0, 0, rng.randint(1, 60))),
        dtype=rng.choice((torch.float32, torch.bfloat16)),
    )


@pytest.mark.parametrize("case", ATTENTION.values(), ids=ATTENTION)
def test_attention_equals_plain_torch(interpreter: Executor, case: Attention) -> None:
    interpreter.submit(check_attention, case, seed=1).result()


@pytest.mark.parametrize("seed", range(6))
def test_some_attention_equals_plain_torch(interpreter: Executor, seed: int) -> None:
    interpreter.submit(check_attention, some_attention(seed), seed).result()


def check_attention(case: Attention, seed: int) -> None:
    """What no query may see is no number; tokens of no sequence lie at both ends, and sequences in no order."""
    from motet_runtime.engine.attention_triton import attend, lay_out, store

    torch.manual_seed(seed)
    (heads, kv_heads), dim, size = case.heads, case.dim, case.block_size
    counts = [count for _, count in case.rows]
    order = torch.randperm(len(counts)).tolist()
    first = {item: 2 + sum(counts[before] for before in order[:place]) for place, item in enumerate(order)}
    most_blocks = max((start + count) // size + 1 for start, count in case.rows)
    # Block 0 belongs to nobody: entries of no use lead to it.
    tables = torch.zeros(len(counts), most_blocks, dtype=torch.int32)
    spare = (torch.randperm(len(counts) * most_blocks) + 1).tolist()
    shape = (len(spare) + 1, kv_heads, size, dim)
    keys_cached, values_cached = (torch.full(shape, float("nan"), dtype=case.dtype) for _ in range(2))
    packed = torch.randn(sum(counts) + 4, heads + 2 * kv_heads, dim).to(case.dtype)
    query = packed[:, :heads]
    want = torch.full(query.shape, 7.0, dtype=case.dtype)
    out = want.clone()

    for item, (start, count) in enumerate(case.rows):
        lowest = max(0, start - case.window + 1) if case.window else 0
        keys, values = torch.randn(2, start + count, kv_heads, dim).to(case.dtype)
        slots = torch.full((start + count,), -1, dtype=torch.int64)
        for position in range(lowest, start + count):
            block = position // size
            tables[item, block] = tables[item, block] or spare.pop()
            slots[position] = int(tables[item, block]) * size + position % size
        store(keys, values, keys_cached, values_cached, slots)
        written = slots[lowest:]
        for cached, held in ((keys_cached, keys), (values_cached, values)):
            assert torch.equal(cached[written // size, :, written % size], held[lowest:])
        span = slice(first[item], first[item] + count)
        want[span] = plain_attention(query[span], keys, values, start, case)

    assert torch.isnan(keys_cached[0]).all(), "a negative slot was stored"
    columns = [torch.tensor(column, dtype=torch.int32) for column in ([first[i] for i in range(len(counts))], counts)]
    starts = torch.tensor([start for start, _ in case.rows], dtype=torch.int32)
    tiles = lay_out(counts, heads // kv_heads, CPU)
    returned = attend(query, keys_cached, values_cached, tables, *columns, starts, case.scale, case.window, tiles, out)
    assert returned is out
    tolerance = TOLERANCE[case.dtype]
    torch.testing.assert_close(out, want, rtol=tolerance, atol=tolerance)


def plain_attention(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, start: int, case: Attention
) -> torch.Tensor:
    """One sequence, query (count, heads, dim) over keys and values (context, kv_heads, dim)."""
    group = case.heads[0] // case.heads[1]
    scores = torch.einsum("qhd,khd->hqk", query.double(), keys.double().repeat_interleave(group, 1)) * case.scale
    age = start + torch.arange(query.shape[0])[:, None] - torch.arange(keys.shape[0])
    seen = (age >= 0) & (age < case.window) if case.window else age >= 0
    weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, values.double().repeat_interleave(group, 1)).to(query.dtype)


def test_tiles_of_another_group_are_refused(interpreter: Executor) -> None:
    with pytest.raises(ValueError, match="3 heads per key head"):
        interpreter.submit(attend_with_wrong_tiles).result()


def attend_with_wrong_tiles() -> None:
    from motet_runtime.engine.attention_triton import attend, lay_out

    cache, none = torch.zeros(1, 1, 16, 16), torch.zeros(1, dtype=torch.int32)
    attend(torch.zeros(1, 2, 16), cache, cache, none[None], none, none, none, 1.0, 0, lay_out([1], 3, CPU))


@dataclass(frozen=True)
class LowRank:
    """`segments` is (count, rank) of each."""

    segments: tuple[tuple[int, int], ...]
    width: int = 80
    outputs: int = 72
    dtype: torch.dtype = torch.float32
    spare_rank: int = 0


RANKS = ((3, 8), (1, 0), (20, 64), (2, 4), (0, 8), (1, 64), (5, 1))
LOW_RANK = {
    "mixed ranks": LowRank(RANKS),
    "mixed ranks, bfloat16": LowRank(RANKS, dtype=torch.bfloat16),
    "float16": LowRank(((4, 16), (2, 3)), dtype=torch.float16),
    "one token each, split sum": LowRank(((1, 8), (1, 64), (1, 0), (1, 17)), width=1100),
    "split sum, bfloat16": LowRank(((1, 8), (16, 33)), width=1100, dtype=torch.bfloat16),
    "more tokens than a tile": LowRank(((70, 4), (130, 24)), width=64, outputs=128),
    "all without adapter": LowRank(((4, 0), (30, 0))),
    "less rank than allowed": LowRank(((4, 8), (17, 16)), spare_rank=40),
    "narrow": LowRank(((3, 2),), width=8, outputs=5),
}


def some_low_rank(seed: int) -> LowRank:
    rng = random.Random(seed)
    most = rng.choice((3, 40))
    return LowRank(
        segments=tuple((rng.randint(0, most), rng.choice((0, 4, 8, 16, 20, 64))) for _ in range(rng.randint(1, 5))),
        width=rng.randint(1, 200),
        outputs=rng.randint(1, 150),
        dtype=rng.choice((torch.float32, torch.bfloat16)),
        spare_rank=rng.choice((0, 20)),
    )


@pytest.mark.parametrize("case", LOW_RANK.values(), ids=LOW_RANK)
def test_low_rank_equals_plain_torch(interpreter: Executor, case: LowRank) -> None:
    interpreter.submit(check_low_rank, case, seed=1).result()


@pytest.mark.parametrize("seed", range(6))
def test_some_low_rank_equals_plain_torch(interpreter: Executor, seed: int) -> None:
    interpreter.submit(check_low_rank, some_low_rank(seed), seed).result()


def check_low_rank(case: LowRank, seed: int) -> None:
    """Rows between those of the adapters are no number; tokens of no segment lie at both ends."""
    from motet_runtime.engine.lora_triton import add_low_rank, lay_out

    torch.manual_seed(seed)
    counts = [count for count, _ in case.segments]
    ranks = [rank for _, rank in case.segments]
    first = [2 + sum(counts[:item]) for item in range(len(counts))]
    row = [0] * len(counts)
    rows = 1
    for item in torch.randperm(len(counts)).tolist():
        row[item] = rows
        rows += ranks[item] + 1
    tokens = sum(counts) + 4
    # As where one product gives query, key and value: x and y are parts of wider rows.
    x = torch.randn(tokens, case.width + 24).to(case.dtype)[:, 16:-8]
    whole = torch.randn(tokens, case.outputs + 16).to(case.dtype)
    want = whole.clone()
    a, b = (torch.full((rows, size), float("nan"), dtype=case.dtype) for size in (case.width, case.outputs))
    for item, (count, rank) in enumerate(case.segments):
        held = slice(row[item], row[item] + rank)
        a[held] = torch.randn(rank, case.width) / case.width**0.5
        b[held] = torch.randn(rank, case.outputs) / max(1, rank) ** 0.5
        span = slice(first[item], first[item] + count)
        low = (x[span].double() @ a[held].double().T).to(case.dtype).double()
        want[span, 8:-8] = (want[span, 8:-8].double() + low @ b[held].double()).to(case.dtype)

    columns = [torch.tensor(column, dtype=torch.int32) for column in (first, counts, row, ranks)]
    add_low_rank(x, whole[:, 8:-8], a, b, *columns, max(ranks) + case.spare_rank, lay_out(counts, CPU))
    tolerance = TOLERANCE[case.dtype]
    torch.testing.assert_close(whole, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("capability", "dtype"), [(80, torch.bfloat16), (90, torch.bfloat16), (80, torch.float32)], ids=str
)
def test_kernels_compile_for_cuda(compiler: Executor, capability: int, dtype: torch.dtype) -> None:
    shared = compiler.submit(shared_memory, capability, dtype).result()
    assert set(shared) == KERNELS
    assert max(shared.values()) <= SHARED_MEMORY, shared


class Target:
    """Stands in for the driver of a device, as far as compiling asks it."""

    def __init__(self, capability: int) -> None:
        from triton.backends.compiler import GPUTarget

        self._target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> object:
        return self._target

    def get_current_device(self) -> int:
        return self._target.arch

    def get_current_stream(self, _: int) -> int:
        return 0


def shared_memory(capability: int, dtype: torch.dtype) -> dict[str, int]:
    """Compile what the launches of a few shapes ask for, without launching; the most bytes of each kernel."""
    import triton

    from motet_runtime.engine import attention_triton, lora_triton

    triton.runtime.driver.set_active(Target(capability))
    found: dict[str, int] = {}

    def compiling(kernel: object) -> Callable[..., None]:
        def compile_only(*args: object, grid: object, warmup: bool, **options: object) -> None:
            compiled = type(kernel).run(kernel, *args, grid=grid, warmup=True, **options)
            assert compiled.asm["cubin"]
            found[compiled.name] = max(found.get(compiled.name, 0), compiled.metadata.shared)

        return compile_only

    for module in (attention_triton, lora_triton):
        for name in KERNELS & set(vars(module)):
            kernel = getattr(module, name)
            kernel.run = compiling(kernel)

    index = torch.zeros(2, dtype=torch.int32)
    for dim in (80, 256) if dtype.itemsize == 2 else (256,):
        packed = torch.zeros(64, 8, dim, dtype=dtype)
        cache = torch.zeros(4, 2, 16, dim, dtype=dtype)
        attention_triton.store(packed[:, 4:6], packed[:, 6:], cache, cache, index.long())
        tiles = attention_triton.lay_out([1, 40], 2, CPU)
        attention_triton.attend(packed[:, :4], cache, cache, index[None], index, index, index, 1.0, 0, tiles)
    x, y = torch.zeros(64, 1024, dtype=dtype), torch.zeros(64, 768, dtype=dtype)
    for counts in ([1, 2], [1, 40]):
        lora_triton.add_low_rank(x, y, x, y, index, index, index, index, 64, lora_triton.lay_out(counts, CPU))
    return found
