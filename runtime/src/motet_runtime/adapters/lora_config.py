"""`adapter_config.json`, as PEFT writes it: which modules a LoRA changes, at what rank and scale.

Served are the forms that are a plain low-rank product: rank and alpha patterns, rsLoRA, target modules as list, regular
expression or `all-linear`, chosen layers, no bias. Anything else is refused by name, because ignoring it would serve
another model than the one that was trained.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from motet_api.reasons import AdapterReason
from motet_runtime.errors import AdapterError

_UNSUPPORTED: Final = {
    "use_dora": "DoRA",
    "use_qalora": "QALoRA",
    "modules_to_save": "modules_to_save",
    "trainable_token_indices": "trainable token indices",
    "target_parameters": "target_parameters",
    "layer_replication": "layer replication",
    "lora_bias": "lora_bias",
    "alora_invocation_tokens": "activated LoRA (aLoRA)",
    "megatron_config": "Megatron layers",
    "eva_config": None,
    "corda_config": None,
    "arrow_config": "Arrow routing",
    "use_bdlora": "BD-LoRA",
}
"""Fields that change what the adapter computes, with the name to refuse by; None marks those that only shaped the
training's start."""


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """The part of the configuration that decides what is computed."""

    rank: int
    alpha: float
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    rslora: bool
    target_modules: tuple[str, ...] | str
    exclude_modules: tuple[str, ...] | str | None
    layers: tuple[int, ...] | None
    layers_pattern: tuple[str, ...]
    fan_in_fan_out: bool

    @property
    def max_rank(self) -> int:
        """The largest rank of any module."""
        return max([self.rank, *self.rank_pattern.values()])

    def rank_of(self, module: str) -> int:
        """Rank at one module (by its full name in the base)."""
        return int(_by_pattern(self.rank_pattern, module, self.rank))

    def scale_of(self, module: str) -> float:
        """Factor of the low-rank product at one module: alpha/r, or alpha/sqrt(r) with rsLoRA (Kalajdzievski 2023)."""
        alpha = float(_by_pattern(self.alpha_pattern, module, self.alpha))
        rank = self.rank_of(module)
        return float(alpha / rank**0.5 if self.rslora else alpha / rank)


def parse_lora_config(text: str) -> LoraConfig:
    """Read `adapter_config.json`.

    Raises:
        AdapterError: it is not JSON, lacks a field, or describes what is not served.
    """
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise AdapterError(AdapterReason.INVALID_CONFIG, f"adapter_config.json is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise AdapterError(AdapterReason.INVALID_CONFIG, "adapter_config.json is not a JSON object")
    _refuse_unsupported(raw)
    rank = _number(raw, "r", int)
    if rank < 1:
        raise AdapterError(AdapterReason.INVALID_CONFIG, f"adapter_config.json: r is {rank}; it must be at least 1")
    targets = raw.get("target_modules")
    if not targets or not isinstance(targets, str | list):
        raise AdapterError(AdapterReason.INVALID_CONFIG, "adapter_config.json: target_modules is missing or empty")
    layers = raw.get("layers_to_transform")
    patterns = raw.get("layers_pattern") or []
    return LoraConfig(
        rank=rank,
        alpha=float(_number(raw, "lora_alpha", (int, float))),
        rank_pattern={str(key): int(value) for key, value in (raw.get("rank_pattern") or {}).items()},
        alpha_pattern={str(key): float(value) for key, value in (raw.get("alpha_pattern") or {}).items()},
        rslora=bool(raw.get("use_rslora")),
        target_modules=targets if isinstance(targets, str) else tuple(map(str, targets)),
        exclude_modules=_names(raw.get("exclude_modules")),
        layers=None if layers is None else tuple([layers] if isinstance(layers, int) else map(int, layers)),
        layers_pattern=(patterns,) if isinstance(patterns, str) else tuple(map(str, patterns)),
        fan_in_fan_out=bool(raw.get("fan_in_fan_out")),
    )


def _refuse_unsupported(raw: Mapping[str, Any]) -> None:
    kind = raw.get("peft_type")
    if kind != "LORA":
        raise AdapterError(AdapterReason.UNSUPPORTED, f"peft_type is {kind!r}; only LORA is served")
    if raw.get("bias", "none") != "none":
        raise AdapterError(AdapterReason.UNSUPPORTED, f"bias is {raw['bias']!r}; only 'none' is served")
    for field, name in _UNSUPPORTED.items():
        if name and raw.get(field):
            raise AdapterError(AdapterReason.UNSUPPORTED, f"{name} is not served ({field} is set)")


def _number(raw: Mapping[str, Any], field: str, kind: type | tuple[type, ...]) -> Any:
    value = raw.get(field)
    if isinstance(value, bool) or not isinstance(value, kind):
        raise AdapterError(AdapterReason.INVALID_CONFIG, f"adapter_config.json: {field} is missing or not a number")
    return value


def _names(value: Any) -> tuple[str, ...] | str | None:
    return value if value is None or isinstance(value, str) else tuple(map(str, value))


def _by_pattern(patterns: Mapping[str, float], module: str, default: float) -> float:
    """PEFT's rule: a pattern is a regular expression that matches the end of the module's name, from a dot on."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default
