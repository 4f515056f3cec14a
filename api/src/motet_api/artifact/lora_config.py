"""`adapter_config.json`, as PEFT writes it: which modules a LoRA changes, at what rank and scale, and from which token.

Served are the forms that are a plain low-rank product: rank and alpha patterns, rsLoRA, target modules as list, regular
expression or `all-linear`, chosen layers, no bias; activated LoRA (`alora_invocation_tokens`, arXiv 2504.12397); and a
classification head beside it (`task_type` SEQ_CLS). Anything else is refused by name, because ignoring it would serve
another model than the one that was trained. Checked against peft 0.21.2, `tuners/lora/config.py`.
"""

import json
import math
import re
from collections.abc import Mapping, Sized
from dataclasses import dataclass
from typing import Any, Final

from motet_api.artifact.errors import ArtifactError
from motet_api.artifact.module_pattern import ModulePattern, module_pattern
from motet_api.reasons import AdapterReason

MAX_CONFIG_BYTES: Final = 1 << 20
"""Larger ones are refused unread; PEFT's own are a few kilobytes."""
_BEYOND_ANY_NUMBER: Final = 1e30
_MAX_LIST: Final = 4096
"""Most entries of a list or table. PEFT writes at most one for each linear module, and few models have 1000 of them."""
_PLAIN_NAME: Final = re.compile(r"[\w.-]{1,256}")
_MAX_TOKEN_ID: Final = 2**31 - 1
HEAD_NAMES: Final = ("score", "classifier")
"""What a classification head is called; PEFT lists both for every SEQ_CLS adapter, whichever the model has."""
_UNSUPPORTED: Final = {
    "use_dora": "DoRA",
    "use_qalora": "QALoRA",
    "use_bdlora": "BD-LoRA",
    "lora_bias": "lora_bias",
    "arrow_config": "Arrow routing",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
    "velora_config": "VeLoRA",
    "megatron_config": "Megatron layers",
    "layer_replication": "layer replication",
    "target_parameters": "target_parameters",
    "trainable_token_indices": "trainable token indices",
}
"""Fields that change what the adapter computes, with the name to refuse by."""
_UNSET: Final[tuple[object, ...]] = (None, False, [])
"""An empty object is not among them: PEFT reads it as that method with its defaults."""
_PLAIN_STARTS: Final = (None, True, False, "gaussian", "eva", "orthogonal", "mica")
"""Values of `init_lora_weights` that leave the base as it is. The others (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA) take
something out of the base's weights before training, and the adapter means nothing beside the weights as published."""


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """The part of the configuration that decides what is computed."""

    rank: int
    alpha: float
    rank_pattern: Mapping[ModulePattern, int]
    alpha_pattern: Mapping[ModulePattern, float]
    rslora: bool
    target_modules: tuple[str, ...] | ModulePattern
    exclude_modules: tuple[str, ...] | ModulePattern | None
    layers: frozenset[int] | None
    layers_pattern: tuple[str, ...]
    fan_in_fan_out: bool
    invocation: tuple[int, ...]
    """Token ids from whose last occurrence on the adapter acts (activated LoRA); empty: it acts everywhere."""
    has_head: bool
    """Whether a classification head is saved beside the low-rank weights."""

    def cost(self, length: int) -> int:
        """Most operations that matching one module's name of this length takes."""
        chosen = [names for names in (self.target_modules, self.exclude_modules) if isinstance(names, ModulePattern)]
        # The rank is asked twice: for itself, and for the scale.
        ranks = 2 * sum(pattern.cost(length) for pattern in self.rank_pattern)
        alphas = sum(pattern.cost(length) for pattern in self.alpha_pattern)
        return length + ranks + alphas + sum(pattern.cost(length) for pattern in chosen)

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


def inspect_config(text: bytes | memoryview, max_rank: int | None) -> LoraConfig:
    """Read `adapter_config.json` and check what it says by itself; `max_rank` is the largest that is served, if known.

    Raises:
        ArtifactError: it is too large, no text, or what `parse_lora_config` refuses; or its rank is too large.
    """
    if len(text) > MAX_CONFIG_BYTES:
        raise _invalid(f"it is larger than {MAX_CONFIG_BYTES} bytes")
    try:
        config = parse_lora_config(bytes(text).decode())
    except UnicodeDecodeError as error:
        raise ArtifactError(AdapterReason.INVALID_CONFIG, f"adapter_config.json is not text: {error}") from error
    if config.fan_in_fan_out:
        raise ArtifactError(AdapterReason.UNSUPPORTED, "fan_in_fan_out is set; only linear modules are served")
    if max_rank is not None and config.max_rank > max_rank:
        message = f"rank {config.max_rank} is above spec.adapters.maxRank {max_rank} of the ModelDeployment"
        raise ArtifactError(AdapterReason.RANK_TOO_LARGE, message)
    return config


def parse_lora_config(text: str) -> LoraConfig:
    """Read `adapter_config.json`.

    Raises:
        ArtifactError: it is not JSON, lacks a field, or describes what is not served.
    """
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise ArtifactError(AdapterReason.INVALID_CONFIG, f"adapter_config.json is not JSON: {error}") from error
    except RecursionError as error:
        raise ArtifactError(AdapterReason.INVALID_CONFIG, "adapter_config.json is nested too deeply") from error
    if not isinstance(raw, dict):
        raise ArtifactError(AdapterReason.INVALID_CONFIG, "adapter_config.json is not a JSON object")
    _refuse_unsupported(raw)
    rank = _number(raw, "r", int)
    if rank < 1:
        raise _invalid(f"r is {rank}; it must be at least 1")
    targets = _names(raw, "target_modules")
    if not targets:
        raise _invalid("target_modules is missing or empty")
    layers = _layers(raw)
    if layers is not None and isinstance(targets, ModulePattern):
        raise _invalid("layers_to_transform needs target_modules to be a list of names")
    return LoraConfig(
        rank=rank,
        alpha=float(_number(raw, "lora_alpha", (int, float))),
        rank_pattern=_pattern(raw, "rank_pattern", int, least=1),
        alpha_pattern=_pattern(raw, "alpha_pattern", (int, float)),
        rslora=_flag(raw, "use_rslora"),
        target_modules=targets,
        exclude_modules=_names(raw, "exclude_modules"),
        layers=layers,
        layers_pattern=_containers(raw),
        fan_in_fan_out=_flag(raw, "fan_in_fan_out"),
        invocation=_invocation(raw),
        has_head=_has_head(raw),
    )


def _refuse_unsupported(raw: Mapping[str, Any]) -> None:
    kind = raw.get("peft_type")
    if kind != "LORA":
        raise ArtifactError(AdapterReason.UNSUPPORTED, f"peft_type is {kind!r}; only LORA is served")
    if raw.get("bias", "none") != "none":
        raise ArtifactError(AdapterReason.UNSUPPORTED, f"bias is {raw['bias']!r}; only 'none' is served")
    for field, name in _UNSUPPORTED.items():
        if raw.get(field) not in _UNSET:
            raise ArtifactError(AdapterReason.UNSUPPORTED, f"{name} is not served ({field} is set)")
    start = raw.get("init_lora_weights")
    if (start.lower() if isinstance(start, str) else start) not in _PLAIN_STARTS:
        message = (
            f"init_lora_weights is {start!r}, which changes the base's weights: save the adapter as a plain LoRA"
            " (path_initial_model_for_weight_conversion of PEFT's save_pretrained)"
        )
        raise ArtifactError(AdapterReason.UNSUPPORTED, message)


def _invocation(raw: Mapping[str, Any]) -> tuple[int, ...]:
    tokens = raw.get("alora_invocation_tokens")
    if tokens is None:
        return ()
    valid = isinstance(tokens, list) and all(_is_number(token, int) and 0 <= token <= _MAX_TOKEN_ID for token in tokens)
    if not tokens or not valid:
        raise _invalid("alora_invocation_tokens must be a list of token ids, and not empty")
    if raw.get("task_type") not in (None, "CAUSAL_LM"):
        # PEFT looks for the invocation in causal models only; with another task the adapter would never act.
        message = f"alora_invocation_tokens is set and task_type is {raw['task_type']!r}; only CAUSAL_LM is served so"
        raise ArtifactError(AdapterReason.UNSUPPORTED, message)
    _check_length("alora_invocation_tokens", tokens)
    return tuple(tokens)


def _has_head(raw: Mapping[str, Any]) -> bool:
    """PEFT adds `HEAD_NAMES` to `modules_to_save` of every SEQ_CLS adapter: once in memory only, now at each save."""
    saved, task = raw.get("modules_to_save"), raw.get("task_type")
    named = saved not in _UNSET
    if named and not (isinstance(saved, list) and task == "SEQ_CLS" and all(name in HEAD_NAMES for name in saved)):
        heads = " or ".join(HEAD_NAMES)
        message = f"modules_to_save is {saved!r} (task_type {task!r}); only the {heads} of SEQ_CLS is served"
        raise ArtifactError(AdapterReason.UNSUPPORTED, message)
    return bool(task == "SEQ_CLS")


def _layers(raw: Mapping[str, Any]) -> frozenset[int] | None:
    layers = raw.get("layers_to_transform")
    if isinstance(layers, int):
        layers = [layers]
    if layers is not None and not (isinstance(layers, list) and all(_is_number(layer, int) for layer in layers)):
        raise _invalid("layers_to_transform must be a list of layer numbers")
    _check_length("layers_to_transform", layers or ())
    # PEFT's rule: an empty list chooses every layer.
    return frozenset(layers) if layers else None


def _containers(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """What the lists of layers are called. PEFT would take expressions; nobody writes any, and they are not served."""
    names = raw.get("layers_pattern") or ()
    listed = (names,) if isinstance(names, str) else names
    plain = isinstance(listed, (list, tuple)) and all(isinstance(n, str) and _PLAIN_NAME.fullmatch(n) for n in listed)
    if not plain:
        raise _invalid("layers_pattern must be the name of the list of layers, such as layers, or a list of names")
    _check_length("layers_pattern", listed)
    return tuple(listed)


def _flag(raw: Mapping[str, Any], field: str) -> bool:
    value = raw.get(field)
    if value is not None and not isinstance(value, bool):
        raise _invalid(f"{field} must be true or false")
    return bool(value)


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
) -> dict[ModulePattern, Any]:
    table = raw.get(field) or {}
    if not isinstance(table, dict) or not all(_is_number(value, kind) and value >= least for value in table.values()):
        raise _invalid(f"{field} must map names of modules to numbers" + (f" from {least} on" if least > 0 else ""))
    _check_length(field, table)
    return {module_pattern(field, pattern): value for pattern, value in table.items()}


def _names(raw: Mapping[str, Any], field: str) -> tuple[str, ...] | ModulePattern | None:
    value = raw.get(field)
    if isinstance(value, str):
        return module_pattern(field, value) if value else ()
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise _invalid(f"{field} must be a list of names or a regular expression")
    _check_length(field, value)
    return tuple(value)


def _check_length(field: str, entries: Sized) -> None:
    if len(entries) > _MAX_LIST:
        raise _invalid(f"{field} has {len(entries)} entries; at most {_MAX_LIST} are read")


def _invalid(message: str) -> ArtifactError:
    return ArtifactError(AdapterReason.INVALID_CONFIG, f"adapter_config.json: {message}")


def _by_pattern(patterns: Mapping[ModulePattern, float], module: str, default: float) -> float:
    """PEFT's rule: the first pattern that matches the end of the module's name, from a dot on."""
    return next((value for pattern, value in patterns.items() if pattern.matches_end(module)), default)
