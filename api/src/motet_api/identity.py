"""Who an adapter is: a name users say, a version that never changes, and a digest of the bytes.

The runtime id of a version is `name@version`; its weights are keyed by content digest everywhere (slots, caches,
metrics), so the same name can never be served with other bytes than those that were verified.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NewType

Digest = NewType("Digest", str)
"""`sha256:` and 64 hexadecimal digits."""
AdapterId = NewType("AdapterId", str)
"""The runtime id of one version: `name@version`, or `namespace/name@version` on a model of another namespace."""
PodName = NewType("PodName", str)

DIGEST_PATTERN: Final = r"^sha256:[0-9a-f]{64}$"
NAME_PATTERN: Final = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
VERSION_PATTERN: Final = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"

ADAPTER_CONFIG_FILE: Final = "adapter_config.json"
ADAPTER_WEIGHTS_FILE: Final = "adapter_model.safetensors"
ADAPTER_FILES: Final = (ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE)
"""The files that make an adapter, as PEFT writes them; the digest covers these two and nothing else."""
SIGNATURE_FILE: Final = "adapter.sig"
"""A detached signature over an adapter's `manifest_text`, base64, beside its files. Never part of the digest."""


@dataclass(frozen=True, slots=True)
class AdapterRef:
    """What a request names: `[namespace/]name[@version]`."""

    name: str
    namespace: str | None = None
    version: str | None = None

    def __str__(self) -> str:
        prefix = f"{self.namespace}/" if self.namespace else ""
        suffix = f"@{self.version}" if self.version else ""
        return f"{prefix}{self.name}{suffix}"


def parse_adapter_ref(text: str) -> AdapterRef:
    """Read `[namespace/]name[@version]`.

    Raises:
        ValueError: the text has an empty part or a character that no object name may hold.
    """
    rest, at, version = text.partition("@")
    namespace, slash, name = rest.rpartition("/")
    parts = [name] + ([namespace] if slash else []) + ([version] if at else [])
    if not all(re.match(NAME_PATTERN, part) for part in parts):
        raise ValueError(f"{text!r} is not an adapter name: write name, name@version or namespace/name@version")
    return AdapterRef(name=name, namespace=namespace or None, version=version or None)


def adapter_id(name: str, version: str) -> AdapterId:
    """The runtime id of one version."""
    return AdapterId(f"{name}@{version}")


def runtime_id(adapter_namespace: str, model_namespace: str, name: str, version: str) -> AdapterId:
    """What the pods of a model call a version: with the adapter's namespace only where it is not the model's own.

    So two adapters of one name, from two namespaces, are two on the pods of a model that serves both.
    """
    prefix = "" if adapter_namespace == model_namespace else f"{adapter_namespace}/"
    return adapter_id(f"{prefix}{name}", version)


def manifest_text(files: Mapping[str, str]) -> str:
    """The canonical manifest of some files, which digests are of and signatures are over.

    Args:
        files: sha256 in hexadecimal by file name.

    One line `<hex>  <name>` per file, sorted by name: what `LC_ALL=C sha256sum *` prints in a folder with these files.

    Raises:
        ValueError: there is no file, or a name that would not be one line.
    """
    if not files or not all(name and name.isprintable() and "/" not in name for name in files):
        raise ValueError(f"an artifact is made of files with plain names; got {', '.join(sorted(files)) or 'nothing'}")
    return "".join(f"{files[name]}  {name}\n" for name in sorted(files))


def files_digest(files: Mapping[str, str]) -> Digest:
    """The content digest of any set of files, a base model's for instance: the sha256 of their `manifest_text`.

    Raises:
        ValueError: as `manifest_text`.
    """
    return Digest("sha256:" + hashlib.sha256(manifest_text(files).encode()).hexdigest())


def manifest_digest(files: Mapping[str, str]) -> Digest:
    """The content digest of an adapter: `files_digest` of exactly `ADAPTER_FILES`.

    `cd DIR && LC_ALL=C sha256sum adapter_config.json adapter_model.safetensors | sha256sum` prints it.

    Args:
        files: sha256 in hexadecimal by file name, for each of `ADAPTER_FILES`.

    Raises:
        ValueError: a file of `ADAPTER_FILES` is missing or another is present.
    """
    if set(files) != set(ADAPTER_FILES):
        raise ValueError(
            f"an adapter is made of {', '.join(ADAPTER_FILES)}; got {', '.join(sorted(files)) or 'nothing'}"
        )
    return files_digest(files)
