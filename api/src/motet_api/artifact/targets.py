"""Which modules of the base an adapter changes, and whether its tensors have their shapes. Pure.

Names are PEFT's: `base_model.model.<module>.lora_A.weight`, where `<module>` is the module's name in the causal model;
a SEQ_CLS adapter has the same, and `base_model.model.score.weight` (or `classifier`), its head, beside them. Base
modules come as a table of names and shapes, so that this runs before torch is imported.
"""

import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Final

from motet_api.artifact.errors import ArtifactError
from motet_api.artifact.lora_config import HEAD_NAMES, LoraConfig
from motet_api.artifact.module_pattern import ModulePattern
from motet_api.artifact.safetensors_header import TensorInfo
from motet_api.reasons import AdapterReason

_PREFIX: Final = "base_model.model."
_LOW_RANK_KEY: Final = re.compile(rf"{re.escape(_PREFIX)}(.+)\.lora_[AB]\.weight")
_LAYER_INDEX: Final = re.compile(r".*?\.[^.]*\.(\d{1,9})\.")
_ALL_LINEAR: Final = "all-linear"
_MAX_COST: Final = 30_000_000
"""Operations of all matches together, some seconds of work. The longest expression that tools write takes a tenth of it
for the modules of a 70B model."""
LinearShapes = Mapping[str, tuple[int, int]]
"""(out features, in features) of each linear module of the base that an adapter may change, by full name."""


@dataclass(frozen=True, slots=True)
class TargetModule:
    """One low-rank product: `y += scale * (x @ A.T) @ B.T` with A of shape (rank, in) and B of shape (out, rank).

    `height` is out, `width` is in.
    """

    name: str
    rank: int
    scale: float
    height: int
    width: int
    a_key: str
    b_key: str


@dataclass(frozen=True, slots=True)
class HeadTensors:
    """A classification head: `logits = h @ W.T + b` with W of shape (labels, hidden) and b of shape (labels,).

    `h` is the base's last hidden state, after the final norm. `bias_key` is None where the head has no bias.
    """

    weight_key: str
    bias_key: str | None
    labels: int


def match_head(config: LoraConfig, tensors: Mapping[str, TensorInfo], hidden: int | None) -> HeadTensors | None:
    """The adapter's classification head; `hidden` is the width of the base's hidden state, None if it is not known.

    Raises:
        ArtifactError: the configuration promises a head and the file has none, has two, or one of another shape.
    """
    if not config.has_head:
        return None
    weights = [key for name in HEAD_NAMES if (key := f"{_PREFIX}{name}.weight") in tensors]
    if len(weights) != 1:
        wanted = " or ".join(f"{_PREFIX}{name}.weight" for name in HEAD_NAMES)
        message = f"task_type SEQ_CLS wants one head, {wanted}; the file has {len(weights)}"
        raise ArtifactError(AdapterReason.CORRUPT_WEIGHTS, message)
    weight_key, bias_key = weights[0], weights[0].removesuffix("weight") + "bias"
    shape = tensors[weight_key].shape
    if len(shape) != 2 or shape[0] < 1 or (hidden is not None and shape[1] != hidden):
        message = f"{weight_key} has shape {list(shape)}; the base wants [labels, {hidden or 'hidden size'}]"
        raise ArtifactError(AdapterReason.BASE_MISMATCH, message)
    if bias_key not in tensors:
        return HeadTensors(weight_key, None, shape[0])
    if tensors[bias_key].shape != shape[:1]:
        message = f"{bias_key} has shape {list(tensors[bias_key].shape)}; the head has {shape[0]} labels"
        raise ArtifactError(AdapterReason.BASE_MISMATCH, message)
    return HeadTensors(weight_key, bias_key, shape[0])


def match_targets(
    config: LoraConfig, tensors: Mapping[str, TensorInfo], base: LinearShapes | None
) -> tuple[TargetModule, ...]:
    """The modules that the adapter changes.

    `base` is None where it is not known: then the file's own modules stand for it, and what is checked is that the
    configuration targets each of them and that A and B fit each other and the rank.

    Raises:
        ArtifactError: a target is no linear module of the base, a tensor is missing, left over, or of another shape, or
            nothing at all would be changed.
    """
    heads = {f"{_PREFIX}{name}.{part}" for name in HEAD_NAMES for part in ("weight", "bias")} if config.has_head else ()
    present = _modules_of(key for key in tensors if key not in heads)
    known = present if base is None else set(base)
    _check_cost(config, known)
    chosen = _Chosen(config)
    targeted = {name for name in known if name in chosen}
    unknown = sorted(present - known)
    if unknown:
        message = f"the base has no linear module {unknown[0]!r} ({len(unknown)} such): trained on another base?"
        raise ArtifactError(AdapterReason.BASE_MISMATCH, message)
    if not targeted:
        where = "file" if base is None else "base"
        message = f"target_modules {_shown(config.target_modules)} matches no module of the {where}"
        raise ArtifactError(AdapterReason.BASE_MISMATCH, message)
    missing = sorted(targeted - present)
    if missing:
        message = f"adapter_config.json targets {missing[0]!r} but the file has no weights for it ({len(missing)} such)"
        raise ArtifactError(AdapterReason.CORRUPT_WEIGHTS, message)
    left_over = sorted(present - targeted)
    if left_over:
        message = f"the file has weights for {left_over[0]!r}, which adapter_config.json does not target"
        raise ArtifactError(AdapterReason.INVALID_CONFIG, message)
    return tuple(_checked(config, name, tensors, None if base is None else base[name]) for name in sorted(targeted))


def _checked(
    config: LoraConfig, name: str, tensors: Mapping[str, TensorInfo], shape: tuple[int, int] | None
) -> TargetModule:
    rank = config.rank_of(name)
    a_key, b_key = f"{_PREFIX}{name}.lora_A.weight", f"{_PREFIX}{name}.lora_B.weight"
    for key in (a_key, b_key):
        if key not in tensors:
            raise ArtifactError(AdapterReason.CORRUPT_WEIGHTS, f"{key} is missing from the file")
    # A base that is not known is whatever the tensors' outer sides say; their number of dimensions is still checked.
    out_features, in_features = shape or (_side(tensors[b_key], 0), _side(tensors[a_key], -1))
    for key, wanted in ((a_key, (rank, in_features)), (b_key, (out_features, rank))):
        found = tensors[key].shape
        if found != wanted:
            message = f"{key} has shape {list(found)}; base and rank {rank} want {list(wanted)}"
            raise ArtifactError(AdapterReason.BASE_MISMATCH, message)
    return TargetModule(name, rank, config.scale_of(name), out_features, in_features, a_key, b_key)


def _check_cost(config: LoraConfig, modules: Set[str]) -> None:
    """Refuse expressions that would take seconds to match, before any is matched."""
    cost = len(modules) * config.cost(max(map(len, modules), default=0))
    if cost > _MAX_COST:
        message = "adapter_config.json: the expressions for modules take too long to match: list the modules' names"
        raise ArtifactError(AdapterReason.INVALID_CONFIG, message)


def _shown(names: tuple[str, ...] | ModulePattern) -> str:
    return repr(names.text) if isinstance(names, ModulePattern) else str(list(names[:10]))


def _side(tensor: TensorInfo, index: int) -> int:
    return tensor.shape[index] if tensor.shape else 0


def _modules_of(keys: Iterable[str]) -> set[str]:
    modules = set()
    for key in keys:
        match = _LOW_RANK_KEY.fullmatch(key)
        if match is None or not key.isprintable():
            raise ArtifactError(AdapterReason.UNSUPPORTED, f"{key} is no low-rank weight of a linear module")
        modules.add(match.group(1))
    return modules


class _Chosen:
    """PEFT's rules of which modules are targeted: an expression is for the whole name, a list names the end of it."""

    def __init__(self, config: LoraConfig) -> None:
        self._config = config
        self._wanted = _names_or_pattern(config.target_modules)
        self._excluded = None if config.exclude_modules is None else _names_or_pattern(config.exclude_modules)

    def __contains__(self, module: str) -> bool:
        if self._excluded is not None and _names_match(self._excluded, module):
            return False
        wanted = self._wanted
        all_linear = isinstance(wanted, ModulePattern) and wanted.text.lower() == _ALL_LINEAR
        matched = all_linear or _names_match(wanted, module)
        if matched and self._config.layers is not None:
            return _layer_index(self._config, module) in self._config.layers
        return matched


def _names_or_pattern(names: tuple[str, ...] | ModulePattern) -> frozenset[str] | ModulePattern:
    return names if isinstance(names, ModulePattern) else frozenset(names)


def _names_match(names: frozenset[str] | ModulePattern, module: str) -> bool:
    if isinstance(names, ModulePattern):
        return names.matches(module)
    starts = [0, *(index + 1 for index, character in enumerate(module) if character == ".")]
    return any(module[start:] in names for start in starts)


def _layer_index(config: LoraConfig, name: str) -> int | None:
    """The number after the first container of layers; `layers_pattern` says what it is called."""
    if not config.layers_pattern:
        match = _LAYER_INDEX.match(name)
        return int(match.group(1)) if match else None
    for container in config.layers_pattern:
        match = re.match(rf"(?:^|.*?\.){re.escape(container)}\.(\d{{1,9}})\.", name)
        if match:
            return int(match.group(1))
    return None
