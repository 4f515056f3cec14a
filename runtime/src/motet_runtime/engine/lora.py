"""Low-rank products on a packed batch: each adapter's tokens lie side by side, so each gets two matrix products.

`y[span] += (x[span] @ A.T) @ (scale * B).T` with A (rank, in) and B (out, rank). Tokens without an adapter are not
touched.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import safe_open

from motet_api.identity import AdapterId
from motet_api.reasons import AdapterReason
from motet_runtime.adapters.artifact import Artifact
from motet_runtime.adapters.targets import LinearShapes
from motet_runtime.errors import AdapterError


@dataclass(frozen=True, slots=True)
class AdapterWeights:
    """Weights by module name: A (rank, in) and B (out, rank), B already scaled."""

    modules: Mapping[str, tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True, slots=True)
class AdapterSpan:
    """The tokens `span` of a packed batch belong to this adapter."""

    span: slice
    weights: AdapterWeights


def read_weights(artifact: Artifact, dtype: torch.dtype, device: torch.device) -> AdapterWeights:
    """Read a verified adapter's weights onto the device, in the type that the base computes in.

    Raises:
        AdapterError: a weight is infinite or no number.
    """
    modules = {}
    with safe_open(artifact.weights, framework="pt", device=str(device)) as file:
        for target in artifact.targets:
            # Copies: what safetensors hands out is a view of the file, and would change with it.
            a = file.get_tensor(target.a_key).to(dtype, copy=True).contiguous()
            b = (file.get_tensor(target.b_key).to(torch.float32) * target.scale).to(dtype).contiguous()
            if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
                message = f"{target.name}: weights are not finite in {str(dtype).removeprefix('torch.')}"
                raise AdapterError(AdapterReason.CORRUPT_WEIGHTS, message)
            modules[target.name] = (a, b)
    return AdapterWeights(modules)


class LoraLayers:
    """Applies adapters to the linear modules of one model by forward hooks."""

    def __init__(self, model: torch.nn.Module) -> None:
        head = model.get_output_embeddings()  # type: ignore[operator]
        self._spans: Sequence[AdapterSpan] = ()
        self._resident: dict[AdapterId, AdapterWeights] = {}
        self.shapes: LinearShapes = {
            name: (module.out_features, module.in_features)
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and module is not head
        }
        for name, module in model.named_modules():
            if name in self.shapes:
                module.register_forward_hook(self._hook(name))

    def install(self, adapter: AdapterId, weights: AdapterWeights) -> None:
        """Make an adapter usable in the next step."""
        self._resident[adapter] = weights

    def remove(self, adapter: AdapterId) -> None:
        """Free an adapter's weights. No sequence may be using it."""
        self._resident.pop(adapter, None)

    def holds(self, adapter: AdapterId | None) -> bool:
        """Whether a row that names this adapter can be computed; the base always can."""
        return adapter is None or adapter in self._resident

    def begin(self, adapters: Iterable[tuple[AdapterId | None, int, int]]) -> None:
        """Set the step's layout: (adapter, offset, count) of each row, in order of offset.

        Raises:
            KeyError: a row names an adapter that is not resident.
        """
        merged: list[tuple[AdapterId | None, int, int]] = []
        for adapter, offset, count in adapters:
            if merged and merged[-1][0] == adapter:
                merged[-1] = (adapter, merged[-1][1], offset + count)
            else:
                merged.append((adapter, offset, offset + count))
        self._spans = [
            AdapterSpan(slice(begin, end), self._resident[adapter])
            for adapter, begin, end in merged
            if adapter is not None
        ]

    def _hook(self, name: str) -> Any:
        def apply(_: torch.nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
            for span in self._spans:
                pair = span.weights.modules.get(name)
                if pair is not None:
                    a, b = pair
                    x = inputs[0][0, span.span]
                    output[0, span.span] += (x @ a.T) @ b.T

        return apply
