"""The whole engine on the GPU's kernels, in Triton's interpreter: the same tokens as on the CPU's.

In a process of its own: Triton settles whether it interprets when it is first imported.
"""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch

from tests.models import make_adapter, make_tiny_llama
from tests.runtime.engine_runs import answers, load_engine

INVOCATION = (60, 7, 60)
ROWS = (
    ("plain", 21, 3),
    (None, 5, 3),
    ("activated", 38, 2),
    ("activated", 20, 3),
    ("patterns", 1, 3),
    (None, 38, 2),
)
"""Adapter, prompt tokens and new tokens of each request; those of 38 share a prefix."""


def tokens(base: Path, folder: Path, adapters: dict[str, Path], triton: bool) -> list[list[int]]:
    """What each request is answered, in small steps, so that chunks of prompts run beside answers."""
    torch.set_num_threads(1)
    engine = load_engine(
        base, folder, adapters, triton=triton, block_size=8, blocks=64, max_step_tokens=24, max_batch_size=4
    )
    text = torch.randint(0, 50, (64,), generator=torch.Generator().manual_seed(7)).tolist()
    sequences = [
        engine.sequence([*text[:length], *(INVOCATION if name == "activated" else ())], name, new)
        for name, length, new in ROWS
    ]
    return answers(engine.run(), sequences)


def test_the_engine_on_the_gpus_kernels_says_what_it_says_on_the_cpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # the child's
    base = make_tiny_llama(tmp_path / "base")
    adapters = {
        "plain": make_adapter(tmp_path / "plain", base, rank=4),
        "activated": make_adapter(
            tmp_path / "activated",
            base,
            rank=3,
            targets="all-linear",
            seed=1,
            config={"alora_invocation_tokens": list(INVOCATION)},
        ),
        "patterns": make_adapter(
            tmp_path / "patterns", base, targets=("q_proj", "o_proj"), seed=2, config={"rank_pattern": {"o_proj": 9}}
        ),
    }
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        by_triton = pool.submit(tokens, base, tmp_path / "triton", adapters, triton=True).result()
    assert by_triton == tokens(base, tmp_path / "cpu", adapters, triton=False)
    assert [len(row) for row in by_triton] == [new for _, _, new in ROWS]
