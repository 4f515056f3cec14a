"""The reference: PEFT and transformers, one request at a time, no cache, no batch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, LlamaForSequenceClassification


class PeftReference:
    """A base with adapters loaded by PEFT. What was asked once is remembered."""

    def __init__(self, base: Path, adapters: Mapping[str, Path], dtype: torch.dtype = torch.float32) -> None:
        model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, attn_implementation="eager").eval()
        for name, path in adapters.items():
            if isinstance(model, PeftModel):
                model.load_adapter(path, adapter_name=name)
            else:
                model = PeftModel.from_pretrained(model, path, adapter_name=name).eval()
        self._model = model
        self._known: dict[tuple[str | None, tuple[int, ...], int], torch.Tensor] = {}

    @torch.inference_mode()
    def logits(self, adapter: str | None, tokens: Sequence[int], acts_from: int = 0) -> torch.Tensor:
        """Logits (tokens, vocabulary) in float32 of one request. An activated LoRA acts from `acts_from` on."""
        key = adapter, tuple(tokens), acts_from
        if key not in self._known:
            self._known[key] = self._computed(adapter, torch.tensor([list(tokens)]), len(tokens) - acts_from)
        return self._known[key]

    def greedy(self, adapter: str | None, prompt: Sequence[int], count: int, acts_from: int = 0) -> list[int]:
        """`count` greedy tokens."""
        tokens = list(prompt)
        for _ in range(count):
            tokens.append(int(self.logits(adapter, tokens, acts_from)[-1].argmax()))
        return tokens[len(prompt) :]

    def check_greedy(
        self, adapter: str | None, prompt: Sequence[int], answer: Sequence[int], acts_from: int = 0, tie: float = 1e-4
    ) -> None:
        """Every token of an answer is the likeliest after those before it, or equals it within `tie`."""
        logits = self.logits(adapter, [*prompt, *answer], acts_from)[len(prompt) - 1 : -1]
        behind = logits.amax(dim=-1) - logits.gather(1, torch.tensor(list(answer))[:, None])[:, 0]
        assert behind.max() <= tie, f"{adapter}: {list(answer)} should be {logits.argmax(dim=-1).tolist()}"

    def _computed(self, adapter: str | None, ids: torch.Tensor, acting: int) -> torch.Tensor:
        if adapter is None and not isinstance(self._model, PeftModel):
            return self._model(ids).logits[0].float()
        if adapter is None:
            with self._model.disable_adapter():
                return self._model(ids).logits[0].float()
        self._model.set_adapter(adapter)
        activated = self._model.active_peft_config.alora_invocation_tokens
        options = {"alora_offsets": [acting]} if activated else {}
        return self._model(ids, **options).logits[0].float()


@torch.inference_mode()
def classify(base: Path, adapter: Path, labels: int, tokens: Sequence[int]) -> list[float]:
    """Logits of a SEQ_CLS adapter's classes."""
    causal = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    causal.config.num_labels = labels
    model = LlamaForSequenceClassification(causal.config)
    model.model = causal.model
    adapted: Any = PeftModel.from_pretrained(model, adapter).eval()
    scores: list[float] = adapted(torch.tensor([list(tokens)])).logits[0].tolist()
    return scores
