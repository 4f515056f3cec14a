"""transformers with PEFT: one static batch in which each row names its adapter (`adapter_names`)."""

from typing import Any

from bench.peers.protocol import Adapters, Options, Prompts, Stages, run

BASE = "__base__"
"""PEFT's word for a row without an adapter."""
SCORED_AT_ONCE = 16
"""Long prompts fill a core alone; batches of 16 of them are as fast as larger ones and need less memory."""


class PeftEngine:
    """A model of transformers, wrapped by PEFT once the first adapter is there."""

    def __init__(self, options: Options, stages: Stages) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(1)
        torch.set_grad_enabled(False)
        if options.lora:
            import peft  # noqa: F401  (imported here so that its time counts as an import's)
        stages.done("imports")
        self._torch = torch
        self._wrapped = False
        self._model: Any = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
        self._model.generation_config.eos_token_id = None  # An answer never ends early.
        self._model.generation_config.pad_token_id = 0
        stages.done("model")
        for name, path in options.adapters.items():
            self.load(name, str(path))
        stages.done("adapters")

    def batch(self, prompts: Prompts, adapters: Adapters, new_tokens: int) -> dict[str, Any]:
        """One call of `generate`: all rows start and end together."""
        output = self._generate(prompts, adapters, new_tokens)
        return {"tokens": [row[-new_tokens:] for row in output.sequences.tolist()]}

    def score(self, prompts: Prompts, adapters: Adapters, token_ids: list[int]) -> dict[str, Any]:
        """Plain LoRAs in mixed batches; activated ones, whose offsets are PEFT's own to find, one by one."""
        at_once = 1 if any(name and self._activated(name) for name in adapters) else SCORED_AT_ONCE
        scores: list[list[float]] = []
        for start in range(0, len(prompts), at_once):
            rows = slice(start, start + at_once)
            output = self._generate(prompts[rows], adapters[rows], 1)
            scores += self._torch.log_softmax(output.logits[0].float(), dim=-1)[:, token_ids].tolist()
        return {"scores": scores}

    def load(self, name: str, path: str) -> None:
        """Put an adapter beside those that are there."""
        if self._wrapped:
            self._model.load_adapter(path, adapter_name=name)
        else:
            from peft import PeftModel

            self._model = PeftModel.from_pretrained(self._model, path, adapter_name=name)
            self._wrapped = True
        self._model.eval()

    def evict(self, name: str) -> None:
        """Remove an adapter."""
        self._model.delete_adapter(name)

    def _activated(self, name: str) -> bool:
        return getattr(self._model.peft_config[name], "alora_invocation_tokens", None) is not None

    def _generate(self, prompts: Prompts, adapters: Adapters, new_tokens: int) -> Any:
        """Prompts of different lengths are padded on the left, as a static batch must be."""
        longest = max(len(prompt) for prompt in prompts)
        ids = self._torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
        mask = self._torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        named = {"adapter_names": [name or BASE for name in adapters]} if self._wrapped else {}
        if not self._wrapped and any(adapters):
            raise ValueError("no adapter is loaded")
        return self._model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=new_tokens,
            do_sample=False,
            output_logits=new_tokens == 1,
            return_dict_in_generate=True,
            **named,
        )


if __name__ == "__main__":
    run(PeftEngine)
