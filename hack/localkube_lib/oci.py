"""Container images from layers, without Docker: deterministic layers, and an OCI image layout streamed as one tar.

A layer is an uncompressed tar, kept in the cache under a key that says what it was made from, so that an unchanged
environment of several gigabytes is packed and hashed once. Its file is never written again: image stores link to it.
"""

import fcntl
import hashlib
import io
import json
import os
import tarfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from localkube_lib.paths import cache_root

LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
DAYS_KEPT = 3


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: a tar file on disk and its digest."""

    path: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Tree:
    """A folder or file that goes into a layer at `target` (absolute path in the image)."""

    source: Path
    target: str
    keep: Callable[[Path], bool] = lambda _: True


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What a Dockerfile would say of how to run the image."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = "/"
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Image:
    """A named image: its manifest, its config and its layers."""

    reference: str
    layers: tuple[Layer, ...]
    config: bytes
    manifest: bytes

    @property
    def digest(self) -> str:
        """Digest of the manifest: the identity of the image."""
        return _digest(self.manifest)


def make_layer(key: str, trees: Callable[[], Iterable[Tree]]) -> Layer:
    """The layer made of these trees; taken from the cache, without asking for them, when one has the same key.

    Owner root, modes as on disk, times zero: the digest depends on content only.
    """
    folder = cache_root() / "localkube" / "layers"
    folder.mkdir(parents=True, exist_ok=True)
    path, record = folder / f"{key}.tar", folder / f"{key}.json"
    with (folder / f".{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if record.exists():
            os.utime(record)
        else:
            _remove_unused(folder)
            hasher = hashlib.sha256()
            partial = path.with_suffix(".partial")
            with partial.open("wb") as raw:
                with tarfile.open(fileobj=_HashingWriter(raw, hasher), mode="w|", format=tarfile.PAX_FORMAT) as tar:
                    seen: set[str] = set()
                    for tree in trees():
                        _add_tree(tar, tree, seen)
                size = raw.tell()
            partial.chmod(0o444)
            partial.replace(path)
            record.write_text(json.dumps(asdict(Layer(str(path), f"sha256:{hasher.hexdigest()}", size))))
    return Layer(**json.loads(record.read_text()))


def make_image(reference: str, layers: Sequence[Layer], config: ImageConfig) -> Image:
    """Put an image together; pure."""
    document: dict[str, Any] = {
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Entrypoint": list(config.entrypoint),
            "Cmd": list(config.command),
            "Env": list(config.env),
            "User": config.user,
            "WorkingDir": config.working_dir,
            "Labels": config.labels,
        },
        "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
        "history": [{"created_by": "hack/images"} for _ in layers],
    }
    encoded = json.dumps(document, sort_keys=True).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {"mediaType": CONFIG_TYPE, "digest": _digest(encoded), "size": len(encoded)},
        "layers": [{"mediaType": LAYER_TYPE, "digest": layer.digest, "size": layer.size} for layer in layers],
    }
    return Image(reference, tuple(layers), encoded, json.dumps(manifest, sort_keys=True).encode())


def write_archive(image: Image, out: IO[bytes], present: frozenset[str] = frozenset()) -> None:
    """Stream the image as an OCI layout in a tar, leaving out layers that the receiver already has."""
    index = {
        "schemaVersion": 2,
        "manifests": [
            {
                "mediaType": MANIFEST_TYPE,
                "digest": image.digest,
                "size": len(image.manifest),
                "annotations": {
                    "io.containerd.image.name": image.reference,
                    "org.opencontainers.image.ref.name": image.reference.rpartition(":")[2],
                },
            }
        ],
    }
    with tarfile.open(fileobj=out, mode="w|") as tar:
        _add_bytes(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        for layer in {layer.digest: layer for layer in image.layers}.values():
            if layer.digest not in present:
                info = tarfile.TarInfo(_blob(layer.digest))
                info.size = layer.size
                with Path(layer.path).open("rb") as blob:
                    tar.addfile(info, blob)
        for content in (image.config, image.manifest):
            _add_bytes(tar, _blob(_digest(content)), content)
        _add_bytes(tar, "index.json", json.dumps(index).encode())


def _remove_unused(folder: Path) -> None:
    """Drop the layers nobody has asked for in days: an environment takes gigabytes, and its lock file changes."""
    for record in folder.glob("*.json"):
        if time.time() - record.stat().st_mtime > DAYS_KEPT * 86400:
            record.unlink(missing_ok=True)
            record.with_suffix(".tar").unlink(missing_ok=True)
            (folder / f".{record.stem}.lock").unlink(missing_ok=True)


class _HashingWriter(io.RawIOBase):
    """Writes through to a file and hashes what passes."""

    def __init__(self, raw: IO[bytes], hasher: "hashlib._Hash") -> None:
        self._raw = raw
        self._hasher = hasher

    def write(self, data: Any) -> int:
        self._hasher.update(data)
        return self._raw.write(data)


def _add_tree(tar: tarfile.TarFile, tree: Tree, seen: set[str]) -> None:
    target = tree.target.strip("/")
    for depth in range(1, target.count("/") + 1):
        _add_folder(tar, "/".join(target.split("/")[:depth]), seen)
    sources = [tree.source]
    if tree.source.is_dir() and not tree.source.is_symlink():
        sources += sorted(tree.source.rglob("*"))
    for source in sources:
        relative = source.relative_to(tree.source)
        if not tree.keep(relative):
            continue
        name = target if relative == Path() else f"{target}/{relative}".lstrip("/")
        if not name or name in seen:
            continue
        seen.add(name)
        info = tar.gettarinfo(source, arcname=name)
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        info.mtime = 0
        info.pax_headers = {}
        if info.isreg():
            with source.open("rb") as content:
                tar.addfile(info, content)
        else:
            tar.addfile(info)


def _add_folder(tar: tarfile.TarFile, name: str, seen: set[str]) -> None:
    if name and name not in seen:
        seen.add(name)
        info = tarfile.TarInfo(name)
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(info)


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
