"""vLLM on the CPU, by its offline class: continuous batching; adapters in slots that are allocated at the start.

Its engine core runs in a child process, whose CPU time counts too.
"""

import os
from itertools import count
from typing import Any

from bench.peers.protocol import Adapters, Options, Prompts, Stages, run

ENVIRONMENT = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # Else it pins itself to one core and reserves another.
    "VLLM_CPU_KVCACHE_SPACE": "2",  # GB, taken whole at the start.
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "HF_HUB_OFFLINE": "1",
}
LONGEST = 4096


class VllmEngine:
    """`vllm.LLM`, asked with token ids."""

    def __init__(self, options: Options, stages: Stages) -> None:
        os.environ.update(ENVIRONMENT)
        from vllm.lora.request import LoRARequest  # type: ignore[import-not-found]

        from vllm import LLM, SamplingParams  # type: ignore[import-not-found]

        stages.done("imports")
        self._sampling, self._request = SamplingParams, LoRARequest
        self._requests: dict[str, Any] = {}
        self._numbers = count(1)
        lora = {"max_loras": options.slots, "max_cpu_loras": options.slots, "max_lora_rank": options.max_rank}
        self._llm = LLM(
            model=str(options.model),
            dtype="float32",
            skip_tokenizer_init=True,
            enforce_eager=True,
            max_model_len=LONGEST,
            max_num_seqs=64,
            enable_prefix_caching=False,
            enable_lora=options.lora,
            **(lora if options.lora else {}),
        )
        stages.done("model")
        for name, path in options.adapters.items():
            self.load(name, str(path))
        stages.done("adapters")

    def batch(self, prompts: Prompts, adapters: Adapters, new_tokens: int) -> dict[str, Any]:
        """All requests at once; the engine batches them as it likes."""
        sampling = self._sampling(temperature=0.0, max_tokens=new_tokens, ignore_eos=True, detokenize=False)
        outputs = self._llm.generate(
            [{"prompt_token_ids": list(prompt)} for prompt in prompts],
            sampling,
            lora_request=[self._requests[name] if name else None for name in adapters],
            use_tqdm=False,
        )
        return {"tokens": [list(output.outputs[0].token_ids) for output in outputs]}

    def load(self, name: str, path: str) -> None:
        """Into a slot."""
        request = self._request(name, next(self._numbers), path)
        if not self._llm.llm_engine.add_lora(request):
            raise RuntimeError(f"{name} was not loaded")
        self._requests[name] = request

    def evict(self, name: str) -> None:
        """Out of its slot."""
        self._llm.llm_engine.remove_lora(self._requests.pop(name).lora_int_id)


if __name__ == "__main__":
    run(VllmEngine)
