"""Attention over a packed batch: the tokens of many sequences side by side, each attending to its own past only.

Registered with transformers' attention interface, so that any decoder with standard attention runs on it. Shapes: query
(1, heads, tokens, head_dim), key and value (1, kv_heads, tokens, head_dim).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch.nn import functional
from transformers import AttentionInterface

from motet_runtime.errors import ModelError

NAME: Final = "motet_packed"
_FIRST_CAPACITY: Final = 64
_ROPE_OF_THE_BATCH: Final = frozenset({"dynamic", "longrope"})
"""Kinds whose angles follow the longest position of the forward pass: here, that of somebody else's request."""


@dataclass(slots=True, eq=False)
class KvCache:
    """Keys and values of one sequence: for each layer two buffers (kv_heads, capacity, head_dim), grown by doubling."""

    layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    def extend(
        self, layer: int, start: int, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new keys and values (kv_heads, new, head_dim) at `start`; returns views of all up to there."""
        end = start + key.shape[1]
        held = self.layers.get(layer)
        if held is None or held[0].shape[1] < end:
            capacity = max(_FIRST_CAPACITY, 1 << (end - 1).bit_length())
            held = (_grown(held and held[0], key, start, capacity), _grown(held and held[1], value, start, capacity))
            self.layers[layer] = held
        keys, values = held
        keys[:, start:end] = key
        values[:, start:end] = value
        return keys[:, :end], values[:, :end]


@dataclass(frozen=True, slots=True)
class PackedRow:
    """One sequence's tokens in the batch: `count` of them from `offset` on; the first is at position `start`."""

    offset: int
    count: int
    start: int
    cache: KvCache


def _grown(old: torch.Tensor | None, like: torch.Tensor, filled: int, capacity: int) -> torch.Tensor:
    new = like.new_empty((like.shape[0], capacity, like.shape[2]))
    if old is not None:
        new[:, :filled] = old[:, :filled]
    return new


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    packed_rows: Iterable[PackedRow],
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """One layer's attention; output (1, tokens, heads, head_dim)."""
    layer: int = module.layer_idx  # type: ignore[assignment]
    output = torch.empty_like(query)
    for row in packed_rows:
        span = slice(row.offset, row.offset + row.count)
        keys, values = row.cache.extend(layer, row.start, key[0, :, span], value[0, :, span])
        mask = None
        if row.count > 1 and row.start > 0:
            positions = torch.arange(row.start, row.start + row.count, device=query.device)
            mask = torch.arange(keys.shape[1], device=query.device) <= positions[:, None]
        output[:, :, span] = functional.scaled_dot_product_attention(
            query[:, :, span],
            keys[None],
            values[None],
            attn_mask=mask,
            is_causal=row.count > 1 and row.start == 0,
            scale=scaling,
            enable_gqa=True,
        )
    return output.transpose(1, 2), None


def register() -> None:
    """Make the implementation known to transformers under `NAME`."""
    AttentionInterface.register(NAME, packed_attention)


def check_supported(config: Any) -> None:
    """Refuse a model whose attention is not the standard one.

    Raises:
        ModelError: names what is not supported.
    """
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"]) - {"full_attention"}
    if kinds:
        raise ModelError(f"{config.model_type}: attention of type {', '.join(sorted(kinds))} is not supported")
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        raise ModelError(f"{config.model_type}: sliding-window attention is not supported")
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") in _ROPE_OF_THE_BATCH:
        raise ModelError(f"{config.model_type}: rope_type {rope['rope_type']} is not supported")
    for name in ("attn_logit_softcapping", "alibi", "kv_lora_rank"):
        if getattr(config, name, None):
            raise ModelError(f"{config.model_type}: {name} is not supported")
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"{config.model_type} is an encoder-decoder model; only decoders are supported")
