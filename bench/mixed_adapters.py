"""How much a batch of distinct adapters costs against the base alone, in our engine and in PEFT, side by side.

A random Llama of 8 M parameters (hidden 256, 4 layers), one compute thread, float32; 32 requests of 64 tokens in and 16
out; adapters of rank 8 on q, k, v and o. Figures are medians of CPU seconds over rounds in which the four variants take
turns, so that a noisy machine hurts all alike. Run it as `make bench`.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from bench.results import write
from motet_api.identity import AdapterId
from motet_api.modeldeployment import DType
from motet_runtime.adapters.artifact import verify
from motet_runtime.engine.lora import read_weights
from motet_runtime.engine.model import ModelRunner, load_model
from motet_runtime.engine.scheduler import Failed, Scheduler
from motet_runtime.engine.sequence import SamplingParams, Sequence
from tests.models import make_adapter, make_tiny_llama

REQUESTS, PROMPT, NEW = 32, 64, 16
ROUNDS = 5
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")


def run_motet(runner: ModelRunner, prompts: list[list[int]], names: list[str | None]) -> list[list[int]]:
    """All requests through the engine's loop; returns the new tokens of each."""
    scheduler = Scheduler(max_batch_size=REQUESTS, max_step_tokens=512, eos_ids=())
    params = SamplingParams(max_new_tokens=NEW, ignore_eos=True)
    sequences = [
        Sequence(index, tuple(prompt), params, AdapterId(name) if name else None)
        for index, (prompt, name) in enumerate(zip(prompts, names, strict=True))
    ]
    for sequence in sequences:
        scheduler.add(sequence)
    while (plan := scheduler.schedule()).chunks:
        for outcome in scheduler.update(plan, runner.run(plan)):
            if isinstance(outcome, Failed):
                raise RuntimeError(f"a request failed, so the figures would mean nothing: {outcome.error}")
            if outcome.finish:
                runner.forget(outcome.sequence)
    return [sequence.output for sequence in sequences]


def run_peft(model: Any, prompts: list[list[int]], names: list[str | None]) -> list[list[int]]:
    """The same by PEFT's mixed batches: static, all prompts of one length."""
    out = model.generate(
        input_ids=torch.tensor(prompts),
        attention_mask=torch.ones(len(prompts), PROMPT, dtype=torch.long),
        adapter_names=[name or "__base__" for name in names],
        max_new_tokens=NEW,
        min_new_tokens=NEW,
        do_sample=False,
        pad_token_id=0,
    )
    return [row[PROMPT:] for row in out.tolist()]


def cpu_seconds(work: Callable[[], list[list[int]]]) -> tuple[float, list[list[int]]]:
    """CPU seconds of this process, and what came out."""
    started = time.process_time()
    tokens = work()
    return time.process_time() - started, tokens


def main() -> None:
    """Measure, print and write bench/results/mixed_adapters.json."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        base = make_tiny_llama(folder / "base", layers=4, hidden=256)
        names = [f"a{index}" for index in range(REQUESTS)]
        runner = load_model(base, DType.FLOAT32, lambda _: None)
        peft: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        for seed, name in enumerate(names):
            path = make_adapter(
                folder / name, base, rank=8, targets=("q_proj", "k_proj", "v_proj", "o_proj"), seed=seed
            )
            weights = read_weights(verify(path, None, runner.lora.shapes, 8), torch.float32, torch.device("cpu"))
            runner.lora.install(AdapterId(name), weights)
            if isinstance(peft, PeftModel):
                peft.load_adapter(path, adapter_name=name)
            else:
                peft = PeftModel.from_pretrained(peft, path, adapter_name=name)
        peft.eval()
        prompts = torch.randint(0, 256, (REQUESTS, PROMPT), generator=torch.Generator().manual_seed(1)).tolist()
        nobody: list[str | None] = [None] * REQUESTS
        everybody: list[str | None] = list(names)
        variants: dict[str, Callable[[], list[list[int]]]] = {
            "motet_base": lambda: run_motet(runner, prompts, nobody),
            "motet_distinct": lambda: run_motet(runner, prompts, everybody),
            "peft_base": lambda: run_peft(peft, prompts, nobody),
            "peft_distinct": lambda: run_peft(peft, prompts, everybody),
        }
        seconds: dict[str, list[float]] = {name: [] for name in variants}
        tokens: dict[str, list[list[int]]] = {}
        for _ in range(ROUNDS + 1):
            for name, work in variants.items():
                spent, tokens[name] = cpu_seconds(work)
                seconds[name].append(spent)
                print(f"{name:15} {spent:6.2f} CPU s", file=sys.stderr)
    # The first round warms up and does not count.
    medians = {name: statistics.median(rows[1:]) for name, rows in seconds.items()}
    agree = sum(a == b for a, b in zip(tokens["motet_distinct"], tokens["peft_distinct"], strict=True))
    figures = {f"{name}_requests_per_cpu_s": round(REQUESTS / value, 2) for name, value in medians.items()}
    figures |= {
        "motet_distinct_over_base": round(medians["motet_base"] / medians["motet_distinct"], 3),
        "peft_distinct_over_base": round(medians["peft_base"] / medians["peft_distinct"], 3),
        "motet_over_peft_distinct": round(medians["peft_distinct"] / medians["motet_distinct"], 3),
        "equal_answers_share": round(agree / REQUESTS, 3),
    }
    write("mixed_adapters", figures, "one thread")


if __name__ == "__main__":
    main()
