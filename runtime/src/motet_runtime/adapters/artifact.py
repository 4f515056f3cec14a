"""An adapter's folder, verified: nothing of it reaches the engine before all of this holds."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from motet_api.identity import ADAPTER_CONFIG_FILE, ADAPTER_FILES, ADAPTER_WEIGHTS_FILE, Digest, manifest_digest
from motet_api.reasons import AdapterReason
from motet_runtime.adapters.lora_config import parse_lora_config
from motet_runtime.adapters.safetensors_header import read_header
from motet_runtime.adapters.targets import LinearShapes, TargetModule, match_targets
from motet_runtime.errors import AdapterError

_MAX_CONFIG_BYTES: Final = 1 << 20
_PICKLES: Final = ("adapter_model.bin", "adapter_model.pt", "pytorch_model.bin")


@dataclass(frozen=True, slots=True)
class Artifact:
    """A verified adapter: where its weights lie and how they apply to the base."""

    weights: Path
    digest: Digest
    rank: int
    size_bytes: int
    targets: tuple[TargetModule, ...]

    @property
    def target_names(self) -> list[str]:
        """The kinds of module that are changed (`q_proj`, ...), for people."""
        return sorted({target.name.rpartition(".")[2] for target in self.targets})


def folder_digest(folder: Path) -> Digest:
    """Content digest of an adapter's folder.

    Raises:
        AdapterError: a file is missing.
    """
    _check_files(folder)
    return manifest_digest({name: _sha256(folder / name) for name in ADAPTER_FILES})


def verify(folder: Path, wanted: Digest | None, base: LinearShapes, max_rank: int) -> Artifact:
    """Check everything that can be checked without loading.

    Raises:
        AdapterError: with the first thing that is wrong, cheapest checks first but the digest before any parsing.
    """
    digest = folder_digest(folder)
    if wanted is not None and digest != wanted:
        message = f"the files have digest {digest}, spec wants {wanted}"
        raise AdapterError(AdapterReason.DIGEST_MISMATCH, message)
    if (folder / ADAPTER_CONFIG_FILE).stat().st_size > _MAX_CONFIG_BYTES:
        raise AdapterError(
            AdapterReason.INVALID_CONFIG, f"adapter_config.json is larger than {_MAX_CONFIG_BYTES} bytes"
        )
    try:
        text = (folder / ADAPTER_CONFIG_FILE).read_text()
    except UnicodeDecodeError as error:
        raise AdapterError(AdapterReason.INVALID_CONFIG, f"adapter_config.json is not text: {error}") from error
    config = parse_lora_config(text)
    if config.fan_in_fan_out:
        raise AdapterError(AdapterReason.UNSUPPORTED, "fan_in_fan_out is set; only linear modules are served")
    if config.max_rank > max_rank:
        message = f"rank {config.max_rank} is above spec.adapters.maxRank {max_rank} of the ModelDeployment"
        raise AdapterError(AdapterReason.RANK_TOO_LARGE, message)
    tensors = read_header(folder / ADAPTER_WEIGHTS_FILE)
    targets = match_targets(config, tensors, base)
    size = sum(tensor.nbytes for tensor in tensors.values())
    return Artifact(folder / ADAPTER_WEIGHTS_FILE, digest, config.max_rank, size, targets)


def _check_files(folder: Path) -> None:
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
