"""Benchmarks that compare two variants doing the same work: throughput of batches, classification, wider slots.

A variant is `ENGINE_base` (no request has an adapter) or `ENGINE_distinct` (every request has one of its own).
"""

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass

from bench import models
from bench.process import Setup
from bench.turns import WARM_UP, Job, Variant, take_turns

RANK = 8
WARM_UP_TOKENS, WARM_UP_SCORED = 4, 4
LABELS = (1000, 2000, 3000, 4000, 5000)
"""Token ids that stand for the labels of a classification."""
Ratios = dict[str, tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Batch:
    """So many requests at once, each of as many tokens; `new_tokens` 0 asks for the labels' scores instead."""

    model: str
    requests: int
    prompt: int
    new_tokens: int
    rounds: int
    ratios: Ratios
    """Figure -> the variant that should be faster, and the one it is measured against."""
    suffix: str
    """Of the figures beside the ratios: requests per CPU second and shares of equal tokens."""


def prompts(model: str, count: int, length: int, seed: str) -> list[list[int]]:
    """Random token ids; a seed of its own for each job keeps prefix caches out of the comparison."""
    draw = random.Random(seed)
    return [[draw.randrange(300, models.shape(model).vocab) for _ in range(length)] for _ in range(count)]


def _job(batch: Batch, names: list[str], kind: str) -> Callable[[int], Job]:
    """Work for one kind of variant: the same for every engine, another in every round."""

    def job(turn: int) -> Job:
        asked = prompts(batch.model, batch.requests, batch.prompt, f"{kind} {turn}")
        own: list[str | None] = [None] * batch.requests if kind == "base" else [*names]
        if batch.new_tokens:
            new = min(batch.new_tokens, WARM_UP_TOKENS) if turn == WARM_UP else batch.new_tokens
            return {"op": "batch", "prompts": asked, "adapters": own, "new_tokens": new}
        count = WARM_UP_SCORED if turn == WARM_UP else batch.requests
        return {"op": "score", "prompts": asked[:count], "adapters": own[:count], "token_ids": LABELS}

    return job


def _variant(batch: Batch, name: str) -> Variant:
    """`ENGINE_base` or `ENGINE_distinct`, with more after it: `_rankN` starts the engine for that rank.

    Base and distinct are asked of the same process, so the base pays for the adapters' being there. vLLM and OpenVINO
    are faster without support for adapters, so their base is asked of a process without it.
    """
    engine, kind, *more = name.split("_")
    path = models.model(batch.model)
    adapters = models.adapters(batch.model, batch.requests, RANK)
    rank = next((part.removeprefix("rank") for part in more), str(RANK))
    if kind == "base" and engine in ("vllm", "openvino"):
        setup = Setup(engine, path, flags=("--no-lora",))
    else:
        setup = Setup(engine, path, tuple(adapters.items()), ("--slots", str(batch.requests), "--max-rank", rank))
    return Variant(setup, _job(batch, list(adapters), kind))


def measure(batch: Batch, wanted: Collection[str], rounds: int | None) -> dict[str, float]:
    """The wanted ratios of a batch, and the absolute figures of the variants that they compare."""
    ratios = {figure: pair for figure, pair in batch.ratios.items() if figure in wanted}
    names = dict.fromkeys(name for pair in ratios.values() for name in pair)
    measured = take_turns({name: _variant(batch, name) for name in names}, rounds or batch.rounds)
    figures = {
        figure: round(measured.speed_ratio(*pair), 3)
        for figure, pair in ratios.items()
        if all(name in measured for name in pair)
    }
    for name in measured.answers:
        speed = batch.requests / measured.cpu_seconds(name)
        figures[f"{name}_{batch.suffix}_requests_per_cpu_s"] = round(speed, 3 if speed < 10 else 1)
        reference = f"peft_{name.partition('_')[2]}"
        if name == reference or reference not in measured:
            continue
        if batch.new_tokens:
            share = measured.equal_share(name, reference)
            figures[f"{name}_{batch.suffix}_equal_to_peft_share"] = round(share, 3)
        else:
            figures[f"{name}_{batch.suffix}_worst_difference"] = measured.worst_difference(name, reference)
    return figures


MOTET, MOTET_BASE = "motet_distinct", "motet_base"

MIXED_M = Batch(
    model="M",
    requests=64,
    prompt=64,
    new_tokens=32,
    rounds=5,
    suffix="m",
    ratios={
        "ratio64_m": (MOTET, MOTET_BASE),
        "vs_peft_m": (MOTET, "peft_distinct"),
        "vs_vllm_m": (MOTET, "vllm_distinct"),
        "base_vs_vllm_m": (MOTET_BASE, "vllm_base"),
        "base_vs_openvino_m": (MOTET_BASE, "openvino_base"),
        "peft_ratio64_m": ("peft_distinct", "peft_base"),
        "vllm_ratio64_m": ("vllm_distinct", "vllm_base"),
    },
)
MIXED_SMOLLM2 = Batch(
    model="SmolLM2",
    requests=16,
    prompt=64,
    new_tokens=16,
    rounds=3,
    suffix="smollm2",
    ratios={"ratio16_smollm2": (MOTET, MOTET_BASE), "vs_peft_smollm2": (MOTET, "peft_distinct")},
)
MIXED_S = Batch(
    model="S",
    requests=64,
    prompt=64,
    new_tokens=32,
    rounds=7,
    suffix="s",
    ratios={
        "ratio64_s": (MOTET, MOTET_BASE),
        "vs_peft_s": (MOTET, "peft_distinct"),
        "vs_vllm_s": (MOTET, "vllm_distinct"),
        "base_vs_vllm_s": (MOTET_BASE, "vllm_base"),
        "base_vs_openvino_s": (MOTET_BASE, "openvino_base"),
        "peft_ratio64_s": ("peft_distinct", "peft_base"),
        "vllm_ratio64_s": ("vllm_distinct", "vllm_base"),
    },
)
MIXED_L = Batch(
    model="L",
    requests=16,
    prompt=64,
    new_tokens=16,
    rounds=2,
    suffix="l",
    ratios={
        "ratio16_l": (MOTET, MOTET_BASE),
        "vs_peft_l": (MOTET, "peft_distinct"),
        "peft_ratio16_l": ("peft_distinct", "peft_base"),
    },
)
CLASSIFY_M = Batch(
    model="M",
    requests=64,
    prompt=512,
    new_tokens=0,
    rounds=2,
    suffix="classify_m",
    ratios={
        "classify_ratio_m": (MOTET, MOTET_BASE),
        "classify_vs_peft_m": (MOTET, "peft_distinct"),
    },
)
WIDE_M = Batch(
    model="M",
    requests=64,
    prompt=64,
    new_tokens=32,
    rounds=3,
    suffix="wide_m",
    ratios={"wide_ratio_m": ("motet_distinct_rank64", MOTET)},
)
