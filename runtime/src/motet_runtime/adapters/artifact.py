"""An adapter's folder, verified: nothing of it reaches the engine before all of this holds.

Invariant: each file is read once, and what is hashed, checked and later converted are the same bytes in memory. Whoever
writes to the folder meanwhile changes nothing of it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from motet_api.artifact.adapter import Artifact, inspect_adapter
from motet_api.artifact.lora_config import MAX_CONFIG_BYTES
from motet_api.artifact.safetensors_header import TensorInfo
from motet_api.artifact.targets import LinearShapes
from motet_api.identity import ADAPTER_CONFIG_FILE, ADAPTER_FILES, ADAPTER_WEIGHTS_FILE, Digest, manifest_digest
from motet_api.reasons import AdapterReason
from motet_runtime.errors import AdapterError

_MAX_WEIGHTS_BYTES: Final = 8 * 2**30
"""They are read into memory whole; the largest LoRA of a 70B base is well below."""
_PICKLES: Final = ("adapter_model.bin", "adapter_model.pt", "pytorch_model.bin")


@dataclass(frozen=True, slots=True)
class VerifiedAdapter:
    """A verified adapter with the bytes that were verified: a safetensors file and its tensors. Short-lived."""

    artifact: Artifact
    tensors: Mapping[str, TensorInfo]
    data: memoryview


def folder_digest(folder: Path) -> Digest:
    """Content digest of an adapter's folder.

    Raises:
        AdapterError: a file is missing.
    """
    check_files(folder)
    return manifest_digest({name: _sha256(folder / name) for name in ADAPTER_FILES})


def verify(
    folder: Path, wanted: Digest | None, base: LinearShapes | None, *, hidden: int | None, max_rank: int
) -> VerifiedAdapter:
    """Read an adapter and check everything that can be checked without torch.

    Args:
        folder: the adapter's files, as PEFT writes them.
        wanted: the digest that they must have, if one is demanded.
        base: the linear modules that an adapter may change; None where only the engine knows them.
        hidden: width of the base's hidden state, which a classification head must have too; None likewise.
        max_rank: largest rank that is served.

    Raises:
        AdapterError: with the first thing that is wrong, cheapest checks first but the digest before any parsing.
        OSError: a file cannot be read.
    """
    check_files(folder)
    text = _read(folder / ADAPTER_CONFIG_FILE, MAX_CONFIG_BYTES, AdapterReason.INVALID_CONFIG)
    data = _read(folder / ADAPTER_WEIGHTS_FILE, _MAX_WEIGHTS_BYTES, AdapterReason.UNSUPPORTED)
    digest = manifest_digest(
        {
            ADAPTER_CONFIG_FILE: hashlib.sha256(text).hexdigest(),
            ADAPTER_WEIGHTS_FILE: hashlib.sha256(data).hexdigest(),
        }
    )
    if wanted is not None and digest != wanted:
        message = f"the files have digest {digest}, spec wants {wanted}"
        raise AdapterError(AdapterReason.DIGEST_MISMATCH, message)
    artifact, tensors = inspect_adapter(digest, text, data, base, hidden=hidden, max_rank=max_rank)
    return VerifiedAdapter(artifact, tensors, data)


def _read(path: Path, limit: int, reason: AdapterReason) -> memoryview:
    """A file's bytes, writable: torch warns of tensors over memory that is not."""
    with path.open("rb", buffering=0) as file:
        size = file.seek(0, 2)
        if size > limit:
            raise AdapterError(reason, f"{path.name} is larger than {limit} bytes")
        file.seek(0)
        data = memoryview(bytearray(size))
        filled = 0
        while filled < size and (count := file.readinto(data[filled:])):
            filled += count
    return data[:filled]


def check_files(folder: Path) -> None:
    """Whether an adapter's files are there, and in the folder.

    Raises:
        AdapterError: a file is missing, is a link that leads out, or only a pickle is there.
    """
    if not folder.is_dir():
        raise AdapterError(AdapterReason.SOURCE_NOT_FOUND, f"{folder} does not exist or is not a folder")
    for name in ADAPTER_FILES:
        path = folder / name
        if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
            raise AdapterError(AdapterReason.SOURCE_NOT_FOUND, f"{path} is a link that leads out of its folder")
        if path.is_file():
            continue
        pickles = [pickle for pickle in _PICKLES if (folder / pickle).exists()]
        if name == ADAPTER_WEIGHTS_FILE and pickles:
            message = f"{folder} has {pickles[0]}, a pickle, and no {name}: save the adapter as safetensors"
            raise AdapterError(AdapterReason.UNSAFE_FORMAT, message)
        raise AdapterError(AdapterReason.SOURCE_NOT_FOUND, f"{path} does not exist")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
