"""What an adapter must fit, read from the base's own files: vLLM loads an adapter of other shapes without a word.

A checkpoint names each linear module's weight; embeddings and the output layer are told apart by the vocabulary's size.
"""

import json
import mmap
from pathlib import Path

from motet_api.artifact.safetensors_header import read_header
from motet_api.wire import BaseDescription
from motet_runtime.errors import AdapterError, ModelError

_WEIGHT = ".weight"


def describe_base(folder: Path, model_name: str) -> BaseDescription:
    """The linear modules of the base in a folder, as transformers saves it.

    Raises:
        ModelError: there is no base that can be read.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
        hidden, vocabulary = int(config["hidden_size"]), int(config["vocab_size"])
        files = sorted(folder.glob("*.safetensors"))
        shapes = [entry for file in files for entry in _matrices(file)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"the base in {folder} cannot be read: {type(error).__name__}: {error}") from error
    except AdapterError as error:
        raise ModelError(f"the base in {folder} cannot be read: {error.message}") from error
    if not shapes:
        raise ModelError(f"{folder} has no safetensors files with weights")
    modules = {name: (rows, columns) for name, rows, columns, _ in shapes if vocabulary not in (rows, columns)}
    return BaseDescription(
        model=model_name, hidden_size=hidden, dtype_bytes=max(size for *_, size in shapes), modules=modules
    )


def _matrices(file: Path) -> list[tuple[str, int, int, int]]:
    """Name, rows, columns and bytes of an element of each module's weight in a file."""
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        view = memoryview(mapped)
        try:
            tensors = read_header(file.name, view).tensors
        finally:
            view.release()
    return [
        (name.removesuffix(_WEIGHT), *tensor.shape, tensor.nbytes // max(tensor.shape[0] * tensor.shape[1], 1))
        for name, tensor in tensors.items()
        if name.endswith(_WEIGHT) and len(tensor.shape) == 2
    ]
