"""The engine's attention behind transformers' attention interface: tokens of many sequences side by side, each
attending to its own past only.

The registered function only finds the backend (CPU or CUDA) of the step and hands over. Shapes: query (1, heads,
tokens, head_dim), key and value (1, kv_heads, tokens, head_dim).
"""

from collections.abc import Sequence as Rows
from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch

from motet_runtime.engine.lean_imports import without_compiler_and_distributed
from motet_runtime.errors import ModelError

with without_compiler_and_distributed():
    from transformers import AttentionInterface

NAME: Final = "motet_packed"
_ROPE_OF_THE_BATCH: Final = frozenset({"dynamic", "longrope"})
"""Kinds whose angles follow the longest position of the forward pass: here, that of somebody else's request."""
_STANDARD_LAYERS: Final = frozenset({"full_attention", "sliding_attention"})
_NOT_STANDARD: Final = (
    "attn_logit_softcapping",
    "alibi",
    "kv_lora_rank",
    "attention_sinks",
    "use_bidirectional_attention",
)
_COMPARED: Final = """
apertus arcee biogpt bitnet cohere cohere2 cwm ernie4_5 ernie4_5_moe exaone4 flex_olmo gemma gemma3_text glm glm4
glm4_moe gpt_neox granite granitemoe granitemoeshared helium hy_v3 hyperclovax internlm3 jais2 llama minimax_m2
mistral mixtral nanochat olmo olmo2 olmo3 olmoe opt persimmon phi phi3 qwen2 qwen2_moe qwen3 qwen3_moe seed_oss
smollm3 solar_open starcoder2
"""
COMPARED: Final = frozenset(_COMPARED.split())
"""Types of model whose logits were compared with transformers' own attention (tests/runtime/test_base_support.py).

A model may take this implementation and still not be served right by it: it passes what is not looked at here (the
sinks of gpt_oss), lets tokens see those after them (BERT's), or adds to the scores in a way of its own. So no other is
taken.
"""


@dataclass(frozen=True, slots=True)
class PackedRow:
    """One sequence's tokens in the batch: `count` of them from `offset` on, the first at position `start`; `blocks` are
    its KV blocks in order of position.
    """

    offset: int
    count: int
    start: int
    blocks: Rows[int]


class AttentionBackend(Protocol):
    """Keys and values of all sequences, and attention over them."""

    def begin(self, rows: Rows[PackedRow]) -> None:
        """Set the step's layout, once for all layers."""
        ...

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, window: int
    ) -> torch.Tensor:
        """Store keys and values (tokens, kv_heads, head_dim) and attend with query (tokens, heads, head_dim).

        `window`: how many positions back a token sees, itself included; 0 for all. Returns (tokens, heads, head_dim).
        """
        ...


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    motet_backend: AttentionBackend,
    scaling: float | None = None,
    sliding_window: int | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """One layer's attention; output (1, tokens, heads, head_dim)."""
    layer: int = module.layer_idx  # type: ignore[assignment]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    return motet_backend.attend(layer, q, k, v, scale, sliding_window or 0)[None], None


def register() -> None:
    """Make the implementation known to transformers under `NAME`."""
    AttentionInterface.register(NAME, packed_attention)


def check_supported(config: Any) -> None:
    """Refuse a model whose attention is not the standard one.

    Raises:
        ModelError: names what is not supported.
    """
    kinds = set(getattr(config, "layer_types", None) or []) - _STANDARD_LAYERS
    if kinds:
        raise ModelError(f"{config.model_type}: attention of type {', '.join(sorted(kinds))} is not supported")
    rope = getattr(config, "rope_parameters", None) or {}
    for parameters in [rope, *(part for part in rope.values() if isinstance(part, dict))]:
        if parameters.get("rope_type") in _ROPE_OF_THE_BATCH:
            raise ModelError(f"{config.model_type}: rope_type {parameters['rope_type']} is not supported")
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"{config.model_type} is an encoder-decoder model; only decoders are supported")
    for name in _NOT_STANDARD:
        if getattr(config, name, None):
            raise ModelError(f"{config.model_type}: {name} is not supported")
    if config.model_type not in COMPARED:
        raise ModelError(
            f"models of type {config.model_type} are not supported: nobody has compared this attention with theirs"
        )
