"""From a folder that transformers saved to a runner: weights, memory for keys and values, memory for adapters."""

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from motet_api.artifact.footprint import slot_rows
from motet_api.artifact.targets import LinearShapes
from motet_api.dtypes import DType
from motet_runtime.engine import packed
from motet_runtime.engine.lean_imports import without_compiler_and_distributed
from motet_runtime.engine.linear import serve_linears
from motet_runtime.engine.lora import LoraStacks
from motet_runtime.engine.model import ModelRunner
from motet_runtime.engine.packed import AttentionBackend
from motet_runtime.engine.scheduler import Budgets
from motet_runtime.engine.weights import mapped_model
from motet_runtime.errors import ModelError
from motet_runtime.limits import usable_memory
from motet_runtime.settings import EngineOptions

_log = logging.getLogger(__name__)
_DTYPES: Final[dict[DType, Any]] = {
    DType.AUTO: None,
    DType.FLOAT32: torch.float32,
    DType.BFLOAT16: torch.bfloat16,
    DType.FLOAT16: torch.float16,
}
_KV_SHARE: Final = 0.25
_ADAPTER_SHARE: Final = 0.1
"""Shares of the memory that is there, where no size was given."""
_CUDA_SHARE: Final = 0.9
"""Of a GPU's memory, what is taken at most; the rest is for activations."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A base that can run plans within its budgets. `span`: see `pace.Pace`."""

    runner: ModelRunner
    budgets: Budgets
    span: float


def load_model(
    folder: Path, dtype: DType, options: EngineOptions, stage: Callable[[str], None], *, triton: bool | None = None
) -> LoadedModel:
    """Load a base model; `stage` is told when a stage of the work is done.

    `triton`: compute attention and adapters by the GPU's kernels; None: where there is a GPU. Without one they run in
    Triton's interpreter only.

    Raises:
        ModelError: the folder is no such model, of a kind that is not supported, or too large for the memory.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    triton = device.type == "cuda" if triton is None else triton
    model = _read(folder, dtype, device)
    stage("weights")
    shapes = serve_linears(model)
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    rows = _adapter_rows(options, shapes, model.dtype, device)
    stacks = LoraStacks(shapes, rows, model.dtype, device, triton)
    itemsize = model.dtype.itemsize if triton else 4  # the CPU computes attention in float32
    block_bytes = 2 * config.num_hidden_layers * kv_heads * head_dim * options.block_size * itemsize
    blocks = _kv_blocks(options, config.max_position_embeddings, block_bytes, device)
    attention: AttentionBackend = _attention(
        device, triton, config.num_hidden_layers, (heads, kv_heads, head_dim), (blocks, options.block_size), model.dtype
    )
    runner = ModelRunner(model, shapes, stacks, attention, device)
    _log.info("memory", extra={"kv_bytes": blocks * block_bytes, "kv_blocks": blocks, "adapter_rows": rows})
    budgets = Budgets(
        options.max_batch_size,
        max(options.max_step_tokens, options.max_batch_size),
        blocks,
        options.block_size,
        options.adapter_slots,
        rows,
    )
    linear = sum(height * width for height, width in shapes.values())
    return LoadedModel(runner, budgets, span=linear / (2 * config.num_hidden_layers * heads * head_dim))


def _read(folder: Path, dtype: DType, device: torch.device) -> Any:
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} has no config.json: --model must name a folder that transformers saved")
    packed.register()
    try:
        # The model's own module is imported in here.
        with without_compiler_and_distributed():
            from transformers import AutoConfig, AutoModelForCausalLM
            from transformers.utils.logging import disable_progress_bar

            disable_progress_bar()  # the log is one JSON object a line
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
            packed.check_supported(config)
            model = mapped_model(folder, config, _DTYPES[dtype], packed.NAME, device)
            if model is None:
                model, report = AutoModelForCausalLM.from_pretrained(
                    folder,
                    config=config,
                    dtype=_DTYPES[dtype] or "auto",
                    attn_implementation=packed.NAME,
                    local_files_only=True,
                    use_safetensors=True,
                    output_loading_info=True,
                )
                if missing := sorted(report["missing_keys"]):
                    # transformers would draw them at random.
                    raise ModelError(f"{folder} lacks the weights of {missing[0]} ({len(missing)} such): save it whole")
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{folder} cannot be loaded: {error}") from error
    return model.to(device).eval().requires_grad_(False)


def _attention(
    device: torch.device,
    triton: bool,
    layers: int,
    heads: tuple[int, int, int],
    blocks: tuple[int, int],
    dtype: torch.dtype,
) -> AttentionBackend:
    """`heads`: of queries, of keys, and their size; `blocks`: how many, of how many tokens."""
    query_heads, kv_heads, head_dim = heads
    if triton:
        from motet_runtime.engine.attention_cuda import CudaAttention

        return CudaAttention(layers, kv_heads, head_dim, *blocks, query_heads // kv_heads, dtype, device)
    from motet_runtime.engine.attention_cpu import CpuAttention

    return CpuAttention(layers, kv_heads, head_dim, *blocks)


def _adapter_rows(options: EngineOptions, shapes: LinearShapes, dtype: torch.dtype, device: torch.device) -> int:
    row_bytes = LoraStacks.bytes_per_row(shapes, dtype, device)
    largest = slot_rows(options.max_rank)
    memory = options.adapter_bytes or int(_ADAPTER_SHARE * _memory(device))
    rows = min(memory // row_bytes, options.adapter_slots * largest)
    if rows < largest:
        raise ModelError(
            f"--adapter-memory of {memory >> 20} MiB holds no adapter of rank {options.max_rank}, which takes up to "
            f"{largest * row_bytes >> 20} MiB: raise it, or lower --max-rank"
        )
    return int(rows)


def _kv_blocks(options: EngineOptions, positions: int, block_bytes: int, device: torch.device) -> int:
    if options.kv_bytes:
        memory = options.kv_bytes
    elif device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        memory = int(free - (1 - _CUDA_SHARE) * total)
    else:
        memory = int(_KV_SHARE * _memory(device))
    longest = min(options.max_tokens or sys.maxsize, positions)
    most = options.max_batch_size * -(-longest // options.block_size)
    blocks = min(memory // block_bytes, most)
    if blocks < 2:
        raise ModelError(f"--kv-memory of {memory >> 20} MiB holds no two blocks of {block_bytes} bytes: raise it")
    return int(blocks)


def _memory(device: torch.device) -> int:
    return int(torch.cuda.mem_get_info(device)[1]) if device.type == "cuda" else usable_memory()
