"""OpenVINO GenAI: continuous batching. Adapters are a state of the whole pipeline, so each one's requests are a call.

All adapters must be named when the pipeline is built; none can be loaded or evicted later. The model is converted once,
beside the original, by optimum in a process of its own.
"""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from bench.peers.protocol import Adapters, Options, Prompts, Stages, run

CACHE_GB = 2


def converted(model: Path) -> Path:
    """The model as OpenVINO's intermediate representation in float32; made now if it is not there."""
    folder = model.parent / "openvino"
    if not (folder / ".complete").exists():
        tool = Path(sys.executable).with_name("optimum-cli")
        task = ["--task", "text-generation-with-past", "--weight-format", "fp32"]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        subprocess.run(
            [tool, "export", "openvino", "--model", model, *task, folder], env=environment, check=True, stdout=2
        )
        (folder / ".complete").touch()
    return folder


def _scale(adapter: Path) -> float:
    """Alpha over rank, which the file of the weights does not say."""
    config = json.loads((adapter / "adapter_config.json").read_text())
    return float(config["lora_alpha"] / config["r"])


class OpenvinoEngine:
    """`openvino_genai.ContinuousBatchingPipeline`, asked with token ids."""

    def __init__(self, options: Options, stages: Stages) -> None:
        folder = converted(options.model)
        import numpy
        import openvino  # type: ignore[import-not-found]
        import openvino_genai  # type: ignore[import-not-found]

        stages.done("imports")
        self._genai = openvino_genai
        self._as_tensor = openvino.Tensor
        self._as_array = partial(numpy.array, dtype=numpy.int64)
        self._adapters = {
            name: (openvino_genai.Adapter(path / "adapter_model.safetensors"), _scale(path))
            for name, path in options.adapters.items()
        }
        stages.done("adapters")
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.cache_size = CACHE_GB
        scheduler.max_num_seqs = 64
        scheduler.enable_prefix_caching = False
        properties: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
            "KV_CACHE_PRECISION": "f32",
        }
        if options.lora:
            config = openvino_genai.AdapterConfig()
            for adapter, _ in self._adapters.values():
                config.add(adapter)
            properties["adapters"] = config
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(folder, scheduler, "CPU", properties)
        self._lora = options.lora
        stages.done("model")

    def batch(self, prompts: Prompts, adapters: Adapters, new_tokens: int) -> dict[str, Any]:
        """One call for each adapter, with all of its requests."""
        tokens: list[list[int]] = [[] for _ in prompts]
        for name in dict.fromkeys(adapters):
            rows = [row for row, own in enumerate(adapters) if own == name]
            config = self._genai.GenerationConfig()
            config.max_new_tokens = new_tokens
            config.ignore_eos = True
            config.do_sample = False
            if self._lora:
                config.adapters = self._genai.AdapterConfig()
                if name:
                    config.adapters.add(*self._adapters[name])
            asked = [self._as_tensor(self._as_array([prompts[row]])) for row in rows]
            outputs = self._pipeline.generate(asked, [config] * len(rows))
            for row, output in zip(rows, outputs, strict=True):
                tokens[row] = list(output.m_generation_ids[0])
        return {"tokens": tokens}


if __name__ == "__main__":
    run(OpenvinoEngine)
