"""Which of a source's files are fetched. Pure."""

from typing import Final

from motet_api.artifact.lora_config import MAX_CONFIG_BYTES
from motet_api.identity import ADAPTER_CONFIG_FILE, ADAPTER_FILES, ADAPTER_WEIGHTS_FILE, SIGNATURE_FILE
from motet_api.reasons import AdapterReason
from motet_api.store import ArtifactKind
from motet_operator.store.errors import StoreError
from motet_operator.store.sources.contract import Listing, RemoteFile

MAX_SIGNATURE_BYTES: Final = 16 << 10
_PICKLES: Final = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
_TOKENIZERS: Final = frozenset({"vocab.txt", "merges.txt"})
_MODEL_FILE: Final = "config.json"
_WEIGHTS: Final = ".safetensors"


def select(kind: ArtifactKind, listing: Listing, uri: str) -> tuple[RemoteFile, ...]:
    """The files that make the artifact, with an adapter's signature if there is one, in the order of their names.

    Raises:
        StoreError: one that must be there is not, or is of a size that it cannot have.
    """
    files = {file.name: file for file in listing.files}
    if kind is ArtifactKind.ADAPTER:
        _must_have(files, ADAPTER_WEIGHTS_FILE, listing, uri)
        _must_have(files, ADAPTER_CONFIG_FILE, listing, uri)
        chosen = [files[name] for name in (*ADAPTER_FILES, SIGNATURE_FILE) if name in files]
    else:
        _must_have(files, _MODEL_FILE, listing, uri)
        chosen = _base_files(files)
        if not any(file.name.endswith(_WEIGHTS) for file in chosen):
            raise _missing("a *.safetensors file", listing, uri)
    for file in chosen:
        limit = byte_limit(file.name)
        if limit is not None and (file.size or 0) > limit:
            raise too_large(file.name, limit)
    return tuple(sorted(chosen, key=lambda file: file.name))


def byte_limit(name: str) -> int | None:
    """Bytes that a file of this name may have, if that is known."""
    return {ADAPTER_CONFIG_FILE: MAX_CONFIG_BYTES, SIGNATURE_FILE: MAX_SIGNATURE_BYTES}.get(name)


def too_large(name: str, limit: int) -> StoreError:
    """The error for a file above its limit."""
    reasons = {ADAPTER_CONFIG_FILE: AdapterReason.INVALID_CONFIG, SIGNATURE_FILE: AdapterReason.SIGNATURE_INVALID}
    return StoreError(reasons.get(name, AdapterReason.TOO_LARGE), f"{name} is larger than {limit} bytes")


def _base_files(files: dict[str, RemoteFile]) -> list[RemoteFile]:
    """Configuration, weights, tokenizer, template. Weights beside `model*.safetensors` are copies in another form."""
    weights = [file for name, file in files.items() if name.endswith(_WEIGHTS)]
    plain = [file for file in weights if file.name.startswith("model")]
    rest = [
        file
        for name, file in files.items()
        if name.endswith((".json", ".jinja", ".model")) or name in _TOKENIZERS
        if name != ADAPTER_CONFIG_FILE
    ]
    return [*(plain or weights), *rest]


def _must_have(files: dict[str, RemoteFile], name: str, listing: Listing, uri: str) -> None:
    if name not in files:
        raise _missing(name, listing, uri)


def _missing(what: str, listing: Listing, uri: str) -> StoreError:
    pickles = [name for name in listing.passed_over if name.endswith(_PICKLES)]
    if pickles and what.endswith((_WEIGHTS, "file")):
        message = f"{uri} has {pickles[0]}, a pickle, and not {what}: save it as safetensors"
        return StoreError(AdapterReason.UNSAFE_FORMAT, message)
    return StoreError(AdapterReason.SOURCE_NOT_FOUND, f"{uri} has not {what}: source.uri must name the folder with it")
