"""The checks of whole artifacts, over files on disk that are mapped and not read into memory.

They run in a process of their own (examiner.py): what a hostile file makes of them costs that process and nobody else.
"""

import json
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from motet_api.artifact.adapter import inspect_adapter
from motet_api.artifact.errors import ArtifactError
from motet_api.artifact.footprint import held_bytes
from motet_api.artifact.safetensors_header import BASE_DTYPE_BYTES, read_header
from motet_api.identity import ADAPTER_WEIGHTS_FILE, Digest
from motet_api.reasons import AdapterReason
from motet_api.wire import BaseDescription
from motet_operator.store.finite import check_finite
from motet_operator.store.records import Facts, Fit

INDEX_FILE: Final = "model.safetensors.index.json"
_MAX_JSON: Final = 64 << 20


def mapped(path: Path) -> memoryview:
    """A file's bytes, read as they are looked at. Raises: OSError."""
    if not path.stat().st_size:
        return memoryview(b"")
    with path.open("rb") as file:
        # Unmapped with the last view of it: an error on its way still holds some.
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def examine_adapter(digest: Digest, config: Path, weights: Path) -> Facts:
    """Everything that can be said without the base: configuration, header, spans, the tensors that the one promises and
    the other has, and that the weights are numbers.

    Raises:
        ArtifactError: the first thing that is wrong.
    """
    data = mapped(weights)
    artifact, tensors = inspect_adapter(digest, config.read_bytes(), data, None, hidden=None, max_rank=None)
    check_finite(ADAPTER_WEIGHTS_FILE, data, tensors)
    return Facts(rank=artifact.rank, target_modules=artifact.target_names, size_bytes=artifact.size_bytes)


def fit_adapter(digest: Digest, config: Path, weights: Path, base: BaseDescription) -> Fit:
    """Whether a verified adapter's modules and shapes are the base's."""
    try:
        artifact, _ = inspect_adapter(
            digest, config.read_bytes(), mapped(weights), base.modules, hidden=base.hidden_size, max_rank=None
        )
    except ArtifactError as error:
        return Fit(reason=error.reason, message=error.message)
    return Fit(held_bytes=held_bytes(artifact.targets, base.dtype_bytes))


def examine_base(files: Mapping[str, Path]) -> Facts:
    """A base model's files: configurations are JSON, headers fit their files, and the index names what is there.

    Raises:
        ArtifactError: the first thing that is wrong.
    """
    documents = {name: _json(name, path) for name, path in files.items() if name.endswith(".json")}
    if not isinstance(documents.get("config.json"), dict):
        raise ArtifactError(AdapterReason.INVALID_CONFIG, "config.json is not a JSON object")
    tensors: dict[str, str] = {}
    for name, path in sorted(files.items()):
        if name.endswith(".safetensors"):
            tensors |= dict.fromkeys(read_header(name, mapped(path), BASE_DTYPE_BYTES).tensors, name)
    if INDEX_FILE in documents:
        _check_index(documents[INDEX_FILE], tensors)
    elif sum(name.endswith(".safetensors") for name in files) > 1:
        raise ArtifactError(AdapterReason.CORRUPT_WEIGHTS, f"there are several weight files and no {INDEX_FILE}")
    return Facts()


def _check_index(index: Any, tensors: Mapping[str, str]) -> None:
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict):
        raise ArtifactError(AdapterReason.INVALID_CONFIG, f"{INDEX_FILE} has no weight_map")
    for name, file in weight_map.items():
        if tensors.get(name) != file:
            message = f"{INDEX_FILE} says that {name} is in {file}, and it is not"
            raise ArtifactError(AdapterReason.CORRUPT_WEIGHTS, message)


def _json(name: str, path: Path) -> Any:
    if path.stat().st_size > _MAX_JSON:
        raise ArtifactError(AdapterReason.INVALID_CONFIG, f"{name} is larger than {_MAX_JSON} bytes")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ArtifactError(
            AdapterReason.INVALID_CONFIG, f"{name} is not JSON: {error or 'nested too deeply'}"
        ) from error
