"""Bases whose attention the engine would get wrong are refused by name, before their weights are read."""

from typing import Any

import pytest
from transformers import LlamaConfig, MistralConfig, Phi3Config, Qwen2Config, Qwen3Config, T5Config

from motet_runtime.engine.packed_attention import check_supported
from motet_runtime.errors import ModelError


@pytest.mark.parametrize(
    "config",
    [LlamaConfig(), Qwen2Config(), Qwen3Config(), MistralConfig(sliding_window=None), Phi3Config(sliding_window=None)],
    ids=lambda config: str(config.model_type),
)
def test_standard_attention_is_taken(config: Any) -> None:
    check_supported(config)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (MistralConfig(sliding_window=4096), "sliding-window"),
        (Qwen2Config(use_sliding_window=True, sliding_window=64, max_window_layers=2), "sliding_attention"),
        (LlamaConfig(rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}), "rope_type dynamic"),
        (T5Config(), "encoder-decoder"),
    ],
    ids=["sliding window", "sliding layers", "angles of the longest row", "encoder-decoder"],
)
def test_other_attention_is_refused_by_name(config: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        check_supported(config)
