"""Which modules of the base an adapter changes, and whether its tensors have their shapes. Pure.

Base modules come as a table of names and shapes, so that this runs before torch is imported.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from motet_api.reasons import AdapterReason
from motet_runtime.adapters.lora_config import LoraConfig
from motet_runtime.adapters.safetensors_header import TensorInfo
from motet_runtime.errors import AdapterError

_PREFIX: Final = "base_model.model."
_LAYER_INDEX: Final = re.compile(r".*?\.(?:layers|h|block|blocks|layer)\.(\d+)\.")
LinearShapes = Mapping[str, tuple[int, int]]
"""(out features, in features) of each linear module of the base that an adapter may change, by full name."""


@dataclass(frozen=True, slots=True)
class TargetModule:
    """One low-rank product: `y += scale * (x @ A.T) @ B.T` with A of shape (rank, in) and B of shape (out, rank)."""

    name: str
    rank: int
    scale: float
    a_key: str
    b_key: str


def match_targets(
    config: LoraConfig, tensors: Mapping[str, TensorInfo], base: LinearShapes
) -> tuple[TargetModule, ...]:
    """The modules that the adapter changes.

    Raises:
        AdapterError: a target is no linear module of the base, a tensor is missing, left over, or of another shape, or
            nothing at all would be changed.
    """
    targeted = {name for name in base if _targeted(config, name)}
    present = _modules_of(tensors)
    unknown = sorted(present - set(base))
    if unknown:
        message = f"the base has no linear module {unknown[0]!r} ({len(unknown)} such): trained on another base?"
        raise AdapterError(AdapterReason.BASE_MISMATCH, message)
    if not targeted:
        message = f"target_modules {config.target_modules!r} matches no module of the base"
        raise AdapterError(AdapterReason.BASE_MISMATCH, message)
    missing = sorted(targeted - present)
    if missing:
        message = f"adapter_config.json targets {missing[0]!r} but the file has no weights for it ({len(missing)} such)"
        raise AdapterError(AdapterReason.CORRUPT_WEIGHTS, message)
    left_over = sorted(present - targeted)
    if left_over:
        message = f"the file has weights for {left_over[0]!r}, which adapter_config.json does not target"
        raise AdapterError(AdapterReason.INVALID_CONFIG, message)
    return tuple(_checked(config, name, tensors, base[name]) for name in sorted(targeted))


def _checked(config: LoraConfig, name: str, tensors: Mapping[str, TensorInfo], shape: tuple[int, int]) -> TargetModule:
    rank, (out_features, in_features) = config.rank_of(name), shape
    a_key, b_key = f"{_PREFIX}{name}.lora_A.weight", f"{_PREFIX}{name}.lora_B.weight"
    for key, wanted in ((a_key, (rank, in_features)), (b_key, (out_features, rank))):
        found = tensors[key].shape if key in tensors else None
        if found is None:
            raise AdapterError(AdapterReason.CORRUPT_WEIGHTS, f"{key} is missing from the file")
        if found != wanted:
            message = f"{key} has shape {list(found)}; base and rank {rank} want {list(wanted)}"
            raise AdapterError(AdapterReason.BASE_MISMATCH, message)
    return TargetModule(name, rank, config.scale_of(name), a_key, b_key)


def _modules_of(tensors: Mapping[str, TensorInfo]) -> set[str]:
    modules = set()
    for key in tensors:
        match = re.fullmatch(rf"{re.escape(_PREFIX)}(.+)\.lora_[AB]\.weight", key)
        if match is None:
            raise AdapterError(AdapterReason.UNSUPPORTED, f"{key} is no low-rank weight of a linear module")
        modules.add(match.group(1))
    return modules


def _targeted(config: LoraConfig, name: str) -> bool:
    """PEFT's rules: a string is a regular expression for the whole name, a list names the end of it."""
    if config.exclude_modules is not None and _names_match(config.exclude_modules, name):
        return False
    matched = config.target_modules == "all-linear" or _names_match(config.target_modules, name)
    if matched and config.layers is not None:
        index = _layer_index(config, name)
        return index is not None and index in config.layers
    return matched


def _names_match(names: tuple[str, ...] | str, module: str) -> bool:
    if isinstance(names, str):
        try:
            return re.fullmatch(names, module) is not None
        except re.error as error:
            raise AdapterError(AdapterReason.INVALID_CONFIG, f"{names!r} is no regular expression: {error}") from error
    return any(module == name or module.endswith(f".{name}") for name in names)


def _layer_index(config: LoraConfig, name: str) -> int | None:
    for pattern in config.layers_pattern:
        if match := re.match(rf".*\.{re.escape(pattern)}\.(\d+)\.", name):
            return int(match.group(1))
    match = None if config.layers_pattern else _LAYER_INDEX.match(f".{name}")
    return int(match.group(1)) if match else None
