"""Bases whose attention the engine would get wrong are refused by name, and those that it takes it gets right."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    BertConfig,
    DeepseekV3Config,
    Gemma2Config,
    Gemma3TextConfig,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
    MptConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
    RobertaConfig,
    T5Config,
)

from motet_runtime.engine.packed import COMPARED, check_supported
from motet_runtime.errors import ModelError
from tests.models import make_adapter
from tests.runtime.engine_runs import answers, load_engine
from tests.runtime.peft_reference import PeftReference

TINY: dict[str, Any] = {
    **{"vocab_size": 130, "hidden_size": 64, "num_hidden_layers": 3, "max_position_embeddings": 256},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "sliding_window": 16},
    **{"intermediate_size": 64, "moe_intermediate_size": 32, "ffn_dim": 64, "word_embed_proj_dim": 64},
    **{"num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1},
    **{"topk_group": 1, "first_k_dense_replace": 1, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
}
"""Of these a configuration takes what it knows."""
PROMPTS = ((3,), tuple(range(20, 53)), tuple(range(120, 30, -1)), (5, 6) * 10)


def tiny_config(kind: str, **options: Any) -> Any:
    """A configuration for a model of three small layers, of each type of layer that it may have."""
    known = CONFIG_MAPPING[kind]().to_dict()
    fields = {name: value for name, value in TINY.items() if known.get(name) is not None}
    if known.get("layer_types"):
        fields["layer_types"] = (list(dict.fromkeys(known["layer_types"])) * 3)[:3]
    if known.get("mlp_layer_types"):
        fields["mlp_layer_types"] = (list(dict.fromkeys(known["mlp_layer_types"])) * 3)[:3]
    return CONFIG_MAPPING[kind](**{**fields, **options})


def save_random(config: Any, path: Path) -> Path:
    """A model in which every weight, bias and norm has a say."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape) * 0.3 + (weight.ndim < 2) * weight)
    model.save_pretrained(path)
    return path


def check(base: Path, folder: Path, adapters: dict[str, Path]) -> None:
    """Prompts whole and in chunks, and answers, with and without adapters."""
    engine, reference = load_engine(base, folder, adapters), PeftReference(base, adapters)
    for layout in ({}, {"max_step_tokens": 24, "max_batch_size": 5}):
        owners = [None, *adapters]
        sequences = [engine.sequence(prompt, owner, 5) for prompt in PROMPTS for owner in owners]
        answers(engine.run(**layout), sequences)
        for one in sequences:
            owner = one.adapter.id if one.adapter else None
            reference.check_greedy(owner, one.prompt, one.output, tie=5e-4)


@pytest.mark.parametrize("kind", sorted(COMPARED))
def test_a_type_that_is_taken_is_served_as_transformers_serves_it(kind: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what models of a random configuration say about it
        check(save_random(tiny_config(kind), tmp_path / "base"), tmp_path / "store", {})


FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, one head of keys": ("llama", {"num_key_value_heads": 1}),
    "llama, as many as of queries": ("llama", {"num_key_value_heads": 4, "head_dim": 32}),
    "llama, biases": ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "llama, scaled angles": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 64,
                "rope_theta": 1e4,
            }
        },
    ),
    "mistral, a window below the prompt": ("mistral", {"sliding_window": 9}),
    "mistral, a window of one block": ("mistral", {"sliding_window": 16}),
    "mistral, a window of one token": ("mistral", {"sliding_window": 1}),
    "mistral, no window": ("mistral", {"sliding_window": None}),
    "qwen2, biases": ("qwen2", {"use_sliding_window": False}),
    "qwen2, some layers with a window": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 10, "max_window_layers": 1, "layer_types": None},
    ),
    "qwen3, norms of heads": ("qwen3", {}),
    "gemma3": ("gemma3_text", {"sliding_window": 8, "query_pre_attn_scalar": 8}),
    "phi3, one module for all three": ("phi3", {}),
    "mixtral, experts": ("mixtral", {}),
}


@pytest.mark.parametrize(("kind", "options"), FORMS.values(), ids=FORMS)
def test_forms_of_attention_with_adapters(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    base = save_random(tiny_config(kind, **options), tmp_path / "base")
    # PEFT reads all-linear as including experts, which are no linear modules.
    targets = ("q_proj", "k_proj", "v_proj", "o_proj") if kind == "mixtral" else "all-linear"
    adapters = {
        "all": make_adapter(tmp_path / "all", base, rank=5, targets=targets, scale=0.2, seed=1),
        "some": make_adapter(tmp_path / "some", base, rank=2, targets=r".*\.1\..*o_proj", scale=0.3, seed=2),
    }
    check(base, tmp_path / "store", adapters)


@pytest.mark.parametrize(
    "config",
    [LlamaConfig(), Qwen2Config(), Qwen3Config(), MistralConfig(), Phi3Config(sliding_window=None), Gemma3TextConfig()],
    ids=lambda config: str(config.model_type),
)
def test_standard_attention_is_taken(config: Any) -> None:
    check_supported(config)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (LlamaConfig(rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}), "rope_type dynamic"),
        (T5Config(), "encoder-decoder"),
        (GptOssConfig(), "type gpt_oss"),
        (Gemma2Config(), "attn_logit_softcapping"),
        (Gemma3TextConfig(attn_logit_softcapping=30.0), "attn_logit_softcapping"),
        (Gemma3TextConfig(use_bidirectional_attention=True), "use_bidirectional_attention"),
        (MptConfig(), "type mpt"),
        (DeepseekV3Config(), "kv_lora_rank"),
        (BertConfig(is_decoder=True), "type bert"),
        (RobertaConfig(), "type roberta"),
    ],
    ids=lambda value: str(getattr(value, "model_type", value)),
)
def test_other_attention_is_refused_by_name(config: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        check_supported(config)
