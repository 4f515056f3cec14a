"""`adapter_config.json`, as PEFT writes it: which modules a LoRA changes, at what rank and scale.

Served are the forms that are a plain low-rank product: rank and alpha patterns, rsLoRA, target modules as list, regular
expression or `all-linear`, chosen layers, no bias. Anything else is refused by name, because ignoring it would serve
another model than the one that was trained.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from motet_api.reasons import AdapterReason
from motet_runtime.errors import AdapterError

_BEYOND_ANY_NUMBER: Final = 1e30
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
    except RecursionError as error:
        raise AdapterError(AdapterReason.INVALID_CONFIG, "adapter_config.json is nested too deeply") from error
    if not isinstance(raw, dict):
        raise AdapterError(AdapterReason.INVALID_CONFIG, "adapter_config.json is not a JSON object")
    _refuse_unsupported(raw)
    rank = _number(raw, "r", int)
    if rank < 1:
        raise _invalid(f"r is {rank}; it must be at least 1")
    targets = _names(raw, "target_modules")
    if not targets:
        raise _invalid("target_modules is missing or empty")
    layers = raw.get("layers_to_transform")
    layers = [layers] if isinstance(layers, int) else layers
    if layers is not None and not (isinstance(layers, list) and all(isinstance(layer, int) for layer in layers)):
        raise _invalid("layers_to_transform must be a list of layer numbers")
    patterns = _names(raw, "layers_pattern") or ()
    return LoraConfig(
        rank=rank,
        alpha=float(_number(raw, "lora_alpha", (int, float))),
        rank_pattern=_pattern(raw, "rank_pattern", int, least=1),
        alpha_pattern=_pattern(raw, "alpha_pattern", (int, float)),
        rslora=bool(raw.get("use_rslora")),
        target_modules=targets,
        exclude_modules=_names(raw, "exclude_modules"),
        layers=None if layers is None else tuple(layers),
        layers_pattern=(patterns,) if isinstance(patterns, str) else patterns,
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
    if not _is_number(value, kind):
        raise _invalid(f"{field} is missing or not a number")
    return value


def _is_number(value: Any, kind: type | tuple[type, ...]) -> bool:
    if isinstance(value, bool) or not isinstance(value, kind):
        return False
    # The bound is no limit of anybody's; it keeps out what is not finite, or would not be as a float.
    return -_BEYOND_ANY_NUMBER < float(str(value)) < _BEYOND_ANY_NUMBER


def _pattern(
    raw: Mapping[str, Any], field: str, kind: type | tuple[type, ...], least: float = -math.inf
) -> dict[str, Any]:
    table = raw.get(field) or {}
    if not isinstance(table, dict) or not all(_is_number(value, kind) and value >= least for value in table.values()):
        raise _invalid(f"{field} must map names of modules to numbers" + (f" from {least} on" if least > 0 else ""))
    for pattern in table:
        try:
            re.compile(pattern)
        except re.error as error:
            raise _invalid(f"{field}: {pattern!r} is no regular expression: {error}") from error
    return table


def _names(raw: Mapping[str, Any], field: str) -> tuple[str, ...] | str | None:
    value = raw.get(field)
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise _invalid(f"{field} must be a list of names or a regular expression")
    return tuple(value)


def _invalid(message: str) -> AdapterError:
    return AdapterError(AdapterReason.INVALID_CONFIG, f"adapter_config.json: {message}")


def _by_pattern(patterns: Mapping[str, float], module: str, default: float) -> float:
    """PEFT's rule: a pattern is a regular expression that matches the end of the module's name, from a dot on."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default
