"""Importing transformers' models without what serving never uses: torch's compiler, distributed tensors, accelerate.

transformers 5.23 imports them at the top of its modules, for type checks and decorators; they are over 40% of the time
that importing torch and a model takes (1.5 of 3.3 CPU seconds), and a pod's start-up is waited for. While the block
runs, torch says that it has no distributed package and transformers that accelerate is not there, and a stand-in takes
the compiler's place whose decorators change nothing. Afterwards all is as before: who imports `torch._dynamo` then gets
the real one.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Final

_COMPILER: Final = "torch._dynamo"
_WRAPPED_OPS: Final = "torch._dynamo._trace_wrapped_higher_order_op"


@contextmanager
def without_compiler_and_distributed() -> Iterator[None]:
    """Import transformers' models inside of this. Does nothing if the compiler has been imported already."""
    import torch

    if _COMPILER in sys.modules:
        yield
        return
    compiler, wrapped = ModuleType(_COMPILER), ModuleType(_WRAPPED_OPS)
    compiler.__path__ = []
    for decorator in ("disable", "allow_in_graph", "assume_constant_result"):
        setattr(compiler, decorator, _unchanged)
    # Needed for masks by vmap, of which attention over a packed batch makes none.
    wrapped.TransformGetItemToIndex = _Missing  # type: ignore[attr-defined]
    is_available = torch.distributed.is_available
    sys.modules |= {_COMPILER: compiler, _WRAPPED_OPS: wrapped}
    torch.distributed.is_available = lambda: False
    try:
        from transformers import utils

        has_accelerate = utils.is_accelerate_available
        utils.is_accelerate_available = lambda *_: False
        try:
            yield
        finally:
            utils.is_accelerate_available = has_accelerate
    finally:
        torch.distributed.is_available = is_available
        del sys.modules[_COMPILER], sys.modules[_WRAPPED_OPS]


@contextmanager
def without_collection() -> Iterator[None]:
    """Import and load inside of this: what is made stays, so looking through it for garbage is in vain.

    Saves an eighth of the imports' time. What was made is not looked at afterwards either.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def _unchanged(function: Any = None, *_: Any, **__: Any) -> Any:
    """A decorator that decorates nothing, with or without arguments."""
    return _unchanged if function is None else function


class _Missing:
    def __init__(self) -> None:
        raise RuntimeError("masks by vmap are not available: the engine's attention takes no mask")
