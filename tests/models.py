"""Small models and adapters, made on the spot: a random Llama with a byte tokenizer, and LoRAs as PEFT writes them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

CHAT_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'nobody' %}{{ raise_exception('nobody has no say') }}{% endif %}"
    "{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
)


def make_tiny_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer: one token a byte, `<s>` 256, `</s>` 257. Saved into `path`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: index for index, character in enumerate(alphabet)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(path)
    return tokenizer


def make_tiny_llama(path: Path, *, layers: int = 2, hidden: int = 64, seed: int = 0) -> Path:
    """A random Llama (grouped-query attention, 258 tokens, 512 positions) with a byte tokenizer; returns `path`."""
    path.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=258,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=256,
        eos_token_id=257,
        tie_word_embeddings=False,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    make_tiny_tokenizer(path)
    return path


def make_adapter(
    path: Path,
    base: Path,
    *,
    rank: int = 4,
    targets: Sequence[str] | str = ("q_proj", "v_proj"),
    seed: int = 0,
    scale: float = 0.3,
    config: Mapping[str, Any] | None = None,
) -> Path:
    """A random LoRA for `base`, saved by PEFT; B is not zero, so that it changes what the base says. Returns `path`."""
    model = AutoModelForCausalLM.from_pretrained(base)
    names = targets if isinstance(targets, str) else list(targets)
    lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names, task_type="CAUSAL_LM", **dict(config or {}))
    return _save_random(path, get_peft_model(model, lora), seed, scale)


def make_classifier(path: Path, base: Path, *, labels: int = 3, rank: int = 4, seed: int = 0) -> Path:
    """A random SEQ_CLS adapter for `base`, saved by PEFT: a LoRA of all linear modules and a head. Returns `path`."""
    # From the causal model's parts, since from_pretrained warns of the head that it has to invent.
    causal = AutoModelForCausalLM.from_pretrained(base)
    causal.config.num_labels = labels
    model = LlamaForSequenceClassification(causal.config)
    model.model = causal.model
    lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="SEQ_CLS")
    return _save_random(path, get_peft_model(model, lora), seed, scale=0.3)


def _save_random(path: Path, adapted: Any, seed: int, scale: float) -> Path:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * scale)
    adapted.save_pretrained(path)
    return path


def edit_config(adapter: Path, **changes: Any) -> None:
    """Change fields of an adapter's configuration file."""
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
