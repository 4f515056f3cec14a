"""A model whose weights are the pages of its files.

transformers' own loading makes every module on the meta device first, for which torch imports its symbolic mathematics
(0.4 CPU seconds), and is needed where names or shapes have to be converted. Where the files have the model's own
names, as all have that transformers saves, each weight is mapped from the file in place of the module's, which nobody
wrote to.
"""

import json
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open

_ONE_FILE: Final = "model.safetensors"
_INDEX: Final = "model.safetensors.index.json"


def mapped_model(folder: Path, config: Any, dtype: torch.dtype | None, attention: str, device: torch.device) -> Any:
    """The model, or None if its files have other names than its modules. `dtype` None keeps the files' type.

    Raises:
        OSError, KeyError, ValueError: the files cannot be read.
        RuntimeError: a weight has another shape than its module.
    """
    from transformers import AutoModelForCausalLM, GenerationConfig
    from transformers.initialization import no_init_weights

    files = _files(folder)
    if not files:
        return None
    weights: dict[str, torch.Tensor] = {}
    for path in files:
        # On a GPU straight there; on a CPU the tensors are the file's pages.
        with safe_open(path, framework="pt", device=str(device)) as file:
            weights |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    types = {weight.dtype for weight in weights.values() if weight.is_floating_point()}
    wanted = dtype or config.dtype or next(iter(types))
    with no_init_weights():
        model = AutoModelForCausalLM.from_config(config, dtype=wanted, attn_implementation=attention)
    expected = set(model.state_dict())
    if set(weights) - expected or expected - set(weights) - set(model.all_tied_weights_keys):
        return None
    # One at a time, so that a conversion never holds two copies of the whole.
    for name in weights:
        weights[name] = weights[name].to(wanted)
    model.load_state_dict(weights, strict=False, assign=True)
    model.tie_weights()
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return model


def _files(folder: Path) -> list[Path]:
    if (folder / _ONE_FILE).is_file():
        return [folder / _ONE_FILE]
    if not (folder / _INDEX).is_file():
        return []
    names = json.loads((folder / _INDEX).read_text())["weight_map"].values()
    return [folder / name for name in sorted(set(names))]
