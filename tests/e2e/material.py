"""A tiny random Llama, and adapters of it that are sound or broken in one way each, as files for the pods."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

HIDDEN = 64
LAYERS = 2
TARGETS = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.v_proj": (HIDDEN, HIDDEN // 2),
    "mlp.down_proj": (2 * HIDDEN, HIDDEN),
}
"""Input and output width by module."""
OVERFLOWING = 1e25
"""Weights of this size are finite, so that no check can refuse them, and their products are not."""


def make_material(folder: Path) -> None:
    """Write the model and every adapter that the tests name, readable by the pods' user."""
    make_llama(folder / "llama")
    for seed in (1, 2, 3):
        make_adapter(folder / f"voice-{seed}", seed=seed)
    make_adapter(folder / "rank-32", seed=4, rank=32)
    make_adapter(folder / "rank-128", seed=7, rank=128)
    make_adapter(folder / "other-base", seed=5, width=HIDDEN // 2)
    make_adapter(folder / "overflow", seed=6, factor=OVERFLOWING)
    truncate(copy(folder / "voice-1", folder / "truncated"))
    to_pickle(copy(folder / "voice-1", folder / "pickle"))
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def make_llama(folder: Path) -> None:
    """Two layers, a vocabulary of bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<eos>": 0} | {letter: index for index, letter in enumerate(alphabet, start=1)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>").save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        bos_token_id=None,
        eos_token_id=0,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
        # Only printable ASCII wins: answers are text, and as long as they were asked to be.
        for letter, index in vocabulary.items():
            if not (len(letter) == 1 and letter.isascii()):
                model.lm_head.weight[index] = 0
    model.save_pretrained(folder)


def make_adapter(folder: Path, seed: int, rank: int = 8, width: int = HIDDEN, factor: float = 1.0) -> None:
    """Random weights, large enough that greedy answers differ from the base's and from every other seed's."""
    generator = torch.Generator().manual_seed(seed)
    scale = width / HIDDEN
    tensors = {}
    for layer in range(LAYERS):
        for module, (inputs, outputs) in TARGETS.items():
            key = f"base_model.model.model.layers.{layer}.{module}"
            tensors[f"{key}.lora_A.weight"] = factor * torch.randn(rank, int(inputs * scale), generator=generator)
            tensors[f"{key}.lora_B.weight"] = factor * torch.randn(int(outputs * scale), rank, generator=generator)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "tiny",
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(module.rpartition(".")[2] for module in TARGETS),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))


def copy(source: Path, target: Path) -> Path:
    """A copy to break."""
    shutil.copytree(source, target)
    return target


def truncate(folder: Path) -> None:
    """A file of which the second half is missing."""
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def to_pickle(folder: Path) -> None:
    """The same weights as a pickle."""
    path = folder / "adapter_model.safetensors"
    torch.save(load_file(path), folder / "adapter_model.bin")
    path.unlink()
