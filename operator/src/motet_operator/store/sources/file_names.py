"""Which files of a source are served: those of an adapter or a base model, at the top or in one common folder. Pure."""

import hashlib
from collections.abc import Iterable
from typing import Final

from motet_api.reasons import AdapterReason
from motet_operator.store.sources.contract import Limits, Listing, RemoteFile, SourceError

_SUFFIXES: Final = (".safetensors", ".json", ".jinja", ".model", ".txt", ".sig")
"""Weights, configurations, chat templates, tokenizers (tokenizer.model, merges.txt, vocab.txt) and signatures."""
_CONFIGS: Final = ("adapter_config.json", "config.json")
_MOST_PASSED_OVER: Final = 32


def is_plain(name: str) -> bool:
    """Whether a name is that of a file in a folder, and nothing else."""
    return (
        0 < len(name) <= 255
        and name not in {".", ".."}
        and not any(character in "/\\" or not character.isprintable() for character in name)
    )


def wanted(name: str) -> bool:
    """Whether a file of this name is served. Pickles, code and pictures are not."""
    return is_plain(name) and not name.startswith(".") and name.endswith(_SUFFIXES)


def common_folder(paths: Iterable[str]) -> str:
    """The folder, with its slash, that holds a configuration when the top has none; empty for the top.

    Raises:
        SourceError: more than one folder holds one, so it is not known which is meant.
    """
    folders = {path.rpartition("/")[0] for path in paths if path.rpartition("/")[2] in _CONFIGS}
    if "" in folders or not folders:
        return ""
    if len(folders) > 1:
        names = ", ".join(sorted(folders)[:3])
        raise SourceError(
            AdapterReason.INVALID_SOURCE, f"{names} hold a configuration each: name one of the folders in source.uri"
        )
    return f"{folders.pop()}/"


def listing(files: Iterable[RemoteFile], limits: Limits, what: str, revision: str | None = None) -> Listing:
    """The listing of a folder's files, `revision` being a digest over them unless the source has a pin of its own.

    Raises:
        SourceError: there is no configuration, there are too many files, too many bytes or a name comes twice.
    """
    files = sorted(files, key=lambda file: file.name)
    served = tuple(file for file in files if wanted(file.name))
    others = tuple(file.name for file in files if not wanted(file.name))[:_MOST_PASSED_OVER]
    names = [file.name for file in served]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SourceError(AdapterReason.INVALID_SOURCE, f"{what} has {twice} twice")
    if not any(name in _CONFIGS for name in names):
        raise SourceError(
            AdapterReason.SOURCE_NOT_FOUND,
            f"{what} has neither adapter_config.json nor config.json: source.uri must name the folder with one of them",
        )
    check_sizes(served, limits, what)
    return Listing(revision or _digest(served), served, others)


def check_sizes(files: Iterable[RemoteFile], limits: Limits, what: str) -> None:
    """Raises: SourceError when files are too many or too large, by the sizes that are known."""
    count, total = 0, 0
    for file in files:
        count += 1
        total += file.size or 0
        if (file.size or 0) > limits.max_file_bytes:
            raise too_large(f"{what}: {file.name} has {file.size} bytes", limits.max_file_bytes)
    if total > limits.max_total_bytes:
        raise too_large(f"{what}: the files have {total} bytes", limits.max_total_bytes)
    if count > limits.max_files:
        raise too_large(f"{what} has {count} files", limits.max_files)


def too_large(what: str, limit: int) -> SourceError:
    """The error for more than the store takes."""
    return SourceError(AdapterReason.TOO_LARGE, f"{what}; the store's limit is {limit}")


def _digest(files: tuple[RemoteFile, ...]) -> str:
    lines = "".join(f"{file.name}\0{file.size}\0{file.identity}\n" for file in files)
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"
