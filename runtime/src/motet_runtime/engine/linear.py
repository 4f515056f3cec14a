"""The base's linear modules as they are served: weights packed for the processor, and adapters' products added.

On a CPU torch multiplies float32 by MKL, which on other makers' processors leaves half of their vector width unused.
oneDNN, which torch ships as well, does not, and takes weights that were laid out for it once: twice as fast from 8
tokens on, on the machine of bench/results/kernels.json. The packed weight replaces the other, so memory does not
double. Packing takes longer than mapping the file does, so it is left until after the first token: see
`ModelRunner.pack_next`.
"""

import torch
from torch import nn
from torch.nn import functional

from motet_api.artifact.targets import LinearShapes
from motet_runtime.engine.lora import LoraStacks

_ROWS_TO_PACK_FOR = 64


class ServedLinear(nn.Module):
    """A linear module that can pack its weights, and adds the adapters' products where `stacks` is given."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias
        self.weight = linear.weight
        self._packed: torch.Tensor | None = None
        self._stacks: LoraStacks | None = None
        self._index = 0

    def pack(self) -> None:
        """Lay the weights out for the processor, where that makes a difference."""
        if self._packed is None and _can_pack(self.weight):
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight, _ROWS_TO_PACK_FOR)
            # Its type and device are asked for; its content is not needed any more.
            self.weight = nn.Parameter(self.weight.new_empty(0), requires_grad=False)

    def adapt(self, stacks: LoraStacks, name: str) -> None:
        """Add adapters' products from now on."""
        self._stacks, self._index = stacks, stacks.index(name)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (1, tokens, in) to (1, tokens, out)."""
        if self._packed is None:
            y = functional.linear(x, self.weight, self.bias)
        else:
            y = torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, "none", [], "")
        if self._stacks is not None:
            self._stacks.add(self._index, x, y)
        return y


def serve_linears(model: nn.Module) -> LinearShapes:
    """Replace every linear module; returns the shapes of those that an adapter may change (all but the output's)."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    shapes: dict[str, tuple[int, int]] = {}
    for name, module in list(model.named_modules()):
        if not isinstance(module, nn.Linear):
            continue
        parent = model.get_submodule(name.rpartition(".")[0])
        setattr(parent, name.rpartition(".")[2], ServedLinear(module))
        if module is not head:
            shapes[name] = (module.out_features, module.in_features)
    return shapes


def adapt_linears(model: nn.Module, stacks: LoraStacks, shapes: LinearShapes) -> None:
    """Let adapters act on the modules that `serve_linears` named."""
    for name in shapes:
        module = model.get_submodule(name)
        assert isinstance(module, ServedLinear)
        module.adapt(stacks, name)


def _can_pack(weight: torch.Tensor) -> bool:
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32
