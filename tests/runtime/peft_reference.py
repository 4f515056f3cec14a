"""The reference: PEFT and transformers, one request at a time, no cache, no batch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM


class PeftReference:
    """A base with adapters loaded by PEFT."""

    def __init__(self, base: Path, adapters: dict[str, Path]) -> None:
        model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager").eval()
        for name, path in adapters.items():
            if isinstance(model, PeftModel):
                model.load_adapter(path, adapter_name=name)
            else:
                model = PeftModel.from_pretrained(model, path, adapter_name=name).eval()
        self._model = model

    @torch.inference_mode()
    def logits(self, adapter: str | None, tokens: Sequence[int]) -> torch.Tensor:
        """Logits (tokens, vocabulary) of one request."""
        if adapter is None:
            with self._model.disable_adapter():
                return self._model(torch.tensor([tokens])).logits[0]
        self._model.set_adapter(adapter)
        return self._model(torch.tensor([tokens])).logits[0]

    def greedy(self, adapter: str | None, prompt: Sequence[int], count: int) -> list[int]:
        """`count` greedy tokens."""
        tokens = list(prompt)
        for _ in range(count):
            tokens.append(int(self.logits(adapter, tokens)[-1].argmax()))
        return tokens[len(prompt) :]
