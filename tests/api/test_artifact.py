"""Adapters' files as bytes: what is checked without a base, what one takes, and that hostile sizes are refused fast."""

import json
import time
from collections.abc import Mapping
from typing import Any

import pytest

from motet_api.artifact.adapter import Artifact, inspect_adapter
from motet_api.artifact.errors import ArtifactError
from motet_api.artifact.footprint import held_bytes, slot_rows
from motet_api.artifact.lora_config import inspect_config
from motet_api.artifact.safetensors_header import read_header
from motet_api.artifact.targets import LinearShapes, TargetModule
from motet_api.identity import Digest
from motet_api.reasons import AdapterReason

DIGEST = Digest("sha256:" + "0" * 64)
BASE: LinearShapes = {f"model.layers.{n}.self_attn.{m}_proj": (64, 32) for n in range(2) for m in "qv"}
CONFIG: dict[str, Any] = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
QUICK_SECONDS = 2.0
Shapes = Mapping[str, tuple[int, ...]]


def low_rank(base: LinearShapes = BASE, rank: int = 4) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (height, width) in base.items():
        shapes[f"base_model.model.{name}.lora_A.weight"] = (rank, width)
        shapes[f"base_model.model.{name}.lora_B.weight"] = (height, rank)
    return shapes


def weights(shapes: Shapes) -> memoryview:
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        size = 4
        for side in shape:
            size *= side
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    return with_header(json.dumps(header).encode(), end)


def with_header(text: bytes, size: int = 0) -> memoryview:
    return memoryview(len(text).to_bytes(8, "little") + text + bytes(size))


def inspect(
    changes: Mapping[str, Any] | None = None,
    shapes: Shapes | None = None,
    base: LinearShapes | None = None,
    hidden: int | None = None,
    max_rank: int | None = None,
) -> Artifact:
    text = json.dumps({**CONFIG, **(changes or {})}).encode()
    file = weights(low_rank() if shapes is None else shapes)
    return inspect_adapter(DIGEST, text, file, base, hidden=hidden, max_rank=max_rank)[0]


def test_an_adapter_is_the_same_with_and_without_its_base() -> None:
    known, unknown = inspect(base=BASE, hidden=32, max_rank=4), inspect()
    assert known == unknown
    assert [(target.height, target.width) for target in known.targets] == [(64, 32)] * 4


WITHOUT_BASE: dict[str, tuple[dict[str, Any], dict[str, tuple[int, ...]], AdapterReason, str]] = {
    "another rank": ({"r": 8}, low_rank(), AdapterReason.BASE_MISMATCH, "rank 8"),
    "not targeted": ({"target_modules": ["q_proj"]}, low_rank(), AdapterReason.INVALID_CONFIG, "does not target"),
    "nothing targeted": ({"target_modules": ["x"]}, low_rank(), AdapterReason.BASE_MISMATCH, "of the file"),
    "no weights": ({}, {}, AdapterReason.BASE_MISMATCH, "of the file"),
    "A without B": (
        {},
        {name: shape for name, shape in low_rank().items() if "lora_B" not in name},
        AdapterReason.CORRUPT_WEIGHTS,
        "lora_B.weight is missing",
    ),
    "a number for a matrix": (
        {},
        {name: () if "0.self_attn.q_proj.lora_A" in name else shape for name, shape in low_rank().items()},
        AdapterReason.BASE_MISMATCH,
        "has shape []",
    ),
    "a head without a matrix": (
        {"task_type": "SEQ_CLS"},
        {**low_rank(), "base_model.model.score.weight": (3,)},
        AdapterReason.BASE_MISMATCH,
        "[labels, hidden size]",
    ),
}


@pytest.mark.parametrize(("changes", "shapes", "reason", "said"), WITHOUT_BASE.values(), ids=WITHOUT_BASE)
def test_what_needs_no_base_is_checked_without_one(
    changes: dict[str, Any], shapes: dict[str, tuple[int, ...]], reason: AdapterReason, said: str
) -> None:
    with pytest.raises(ArtifactError) as refused:
        inspect(changes, shapes)
    assert refused.value.reason is reason
    assert said in refused.value.message


def test_the_rank_is_limited_only_where_a_limit_is_known() -> None:
    assert inspect(max_rank=None).rank == 4
    with pytest.raises(ArtifactError, match="maxRank 3") as refused:
        inspect(max_rank=3)
    assert refused.value.reason is AdapterReason.RANK_TOO_LARGE


@pytest.mark.parametrize(("rank", "rows"), [(1, 8), (8, 8), (9, 16), (64, 64), (65, 128)])
def test_a_slot_has_rows_for_the_next_power_of_two(rank: int, rows: int) -> None:
    assert slot_rows(rank) == rows


def test_what_is_held_is_rank_by_both_sides_of_each_module_that_is_changed() -> None:
    targets = [TargetModule("q", 4, 1.0, 64, 32, "a", "b"), TargetModule("v", 8, 1.0, 16, 32, "a", "b")]
    assert held_bytes(targets, element_bytes=2) == 2 * (4 * (64 + 32) + 8 * (16 + 32))


MANY = 1_000_000
HOSTILE_CONFIGS: dict[str, tuple[Any, str]] = {
    "a million targets": ({"target_modules": ["q"] * MANY}, "larger than"),
    "as many targets as a megabyte holds": ({"target_modules": ["q"] * 200_000}, "target_modules has 200000 entries"),
    "as many layers": ({"layers_to_transform": list(range(100_000))}, "layers_to_transform has"),
    "as many ranks": ({"rank_pattern": {f"q{n}": 4 for n in range(60_000)}}, "rank_pattern has"),
    "as many tokens": ({"alora_invocation_tokens": [1] * 200_000}, "alora_invocation_tokens has"),
    "a megabyte in a name": ({"peft_type": "x" * 1_000_000}, "peft_type is"),
    "a megabyte of nesting": ({"loftq_config": None, "auto_mapping": json.loads("[" * 900 + "]" * 900)}, ""),
    "an endless number": ({"r": 10**4000}, "r is missing or not a number"),
    "an endless expression": ({"target_modules": "q" * 100_000}, "more than"),
    "an expression that takes for ever": ({"target_modules": "(" * 8 + "a" + "*)" * 8}, "take too long"),
    "ranks that take for ever": ({"rank_pattern": {f"(.*{n})*": 4 for n in range(4000)}}, "take too long"),
    "a container that is an expression": ({"layers_pattern": "(a+)+", "layers_to_transform": [0]}, "layers_pattern"),
}


@pytest.mark.parametrize(("changes", "said"), HOSTILE_CONFIGS.values(), ids=HOSTILE_CONFIGS)
def test_a_hostile_configuration_is_refused_fast_and_in_few_words(changes: dict[str, Any], said: str) -> None:
    text = json.dumps({**CONFIG, **changes}).encode()
    file = weights(low_rank())
    started = time.perf_counter()
    if said:
        with pytest.raises(ArtifactError) as refused:
            inspect_adapter(DIGEST, text, file, BASE, hidden=32, max_rank=64)
        assert said in refused.value.message
        assert len(refused.value.message) < 1100
    else:
        inspect_adapter(DIGEST, text, file, BASE, hidden=32, max_rank=64)
    assert time.perf_counter() - started < QUICK_SECONDS


def test_a_configuration_of_broken_text_is_refused() -> None:
    with pytest.raises(ArtifactError, match="not text"):
        inspect_config(b"\xff\xfe", None)
    with pytest.raises(ArtifactError, match="nested too deeply"):
        inspect_config(b"[" * 500_000, None)


def test_ranks_for_every_module_of_a_large_model_are_read() -> None:
    base = {f"model.layers.{n}.self_attn.{m}_proj": (8, 8) for n in range(80) for m in ("q", "k", "v", "o", "gate")}
    ranks = dict.fromkeys(base, 4)
    started = time.perf_counter()
    changes = {"rank_pattern": ranks, "target_modules": "all-linear"}
    assert len(inspect(changes, low_rank(base), base=base).targets) == 400
    assert time.perf_counter() - started < QUICK_SECONDS


def entry(shape: Any, offsets: Any, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


HOSTILE_HEADERS: dict[str, tuple[memoryview, str]] = {
    "empty": (memoryview(b""), "truncated"),
    "a header longer than the file": (memoryview((2**63).to_bytes(8, "little") + b"{}"), "truncated"),
    "a header larger than any": (memoryview((17 << 20).to_bytes(8, "little") + bytes(17 << 20)), "not safetensors"),
    "a page of HTML": (memoryview(b"<!DOCTYPE html><html><body>sign in</body></html>"), "not safetensors"),
    "a zip": (memoryview(b"PK\x03\x04" + bytes(100)), "is a pickle"),
    "brackets that would fill the memory": (with_header(b'{"a":[' + b"[]," * 4_000_000 + b"[]]}"), "more than"),
    "commas that would": (with_header(b'{"a":[' + b"1," * 4_000_000 + b"1]}"), "more than"),
    "no object": (with_header(b"[]"), "cannot be read"),
    "no JSON": (with_header(b"{"), "cannot be read"),
    "a name twice": (
        with_header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{}}', 4),
        "a key is there twice",
    ),
    "a name without end": (with_header(json.dumps({"a" * 600: entry([1], [0, 4])}).encode(), 4), "longer name"),
    "a shape without end": (with_header(json.dumps({"a": entry([1] * 9, [0, 4])}).encode(), 4), "more dimensions"),
    "a side without end": (
        with_header(json.dumps({"a": entry([0, 2**41], [0, 0])}).encode()),
        "does not fit",
    ),
    "negative sides": (with_header(json.dumps({"a": entry([-1, -1], [0, 4])}).encode(), 4), "does not fit"),
    "negative offsets": (with_header(json.dumps({"a": entry([1], [-4, 0])}).encode()), "does not fit"),
    "offsets that lie": (with_header(json.dumps({"a": entry([2], [0, 4])}).encode(), 4), "does not fit"),
    "sides that are no numbers": (with_header(json.dumps({"a": entry([True], [0, 4])}).encode(), 4), "not whole"),
    "another type": (with_header(json.dumps({"a": entry([4], [0, 4], "I8")}).encode(), 4), "floating point"),
    "a gap": (with_header(json.dumps({"a": entry([1], [4, 8])}).encode(), 8), "leave a gap"),
    "an overlap": (
        with_header(json.dumps({"a": entry([2], [0, 8]), "b": entry([1], [4, 8])}).encode(), 8),
        "overlap",
    ),
    "bytes too many": (with_header(json.dumps({"a": entry([1], [0, 4])}).encode(), 5), "truncated or padded"),
}


@pytest.mark.parametrize(("file", "said"), HOSTILE_HEADERS.values(), ids=HOSTILE_HEADERS)
def test_a_hostile_header_is_refused_fast(file: memoryview, said: str) -> None:
    started = time.perf_counter()
    with pytest.raises(ArtifactError) as refused:
        read_header("adapter_model.safetensors", file)
    assert refused.value.reason in (AdapterReason.CORRUPT_WEIGHTS, AdapterReason.UNSAFE_FORMAT)
    assert said in refused.value.message
    assert time.perf_counter() - started < QUICK_SECONDS


def test_a_name_with_a_line_break_is_no_weight() -> None:
    with pytest.raises(ArtifactError, match="no low-rank weight"):
        inspect({}, {"base_model.model.q_proj\n.lora_A.weight": (4, 32)})
