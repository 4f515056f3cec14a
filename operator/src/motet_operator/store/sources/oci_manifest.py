"""References and manifests of OCI artifacts: what a URI names, and which files an artifact's layers are. Pure."""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, Final

import oras.container

from motet_api.reasons import AdapterReason
from motet_operator.store.sources.archive import Packing
from motet_operator.store.sources.contract import SourceError, SourceRef
from motet_operator.store.sources.file_names import is_plain

MANIFEST_TYPES: Final = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_TITLE: Final = "org.opencontainers.image.title"
_UNPACK: Final = "io.deis.oras.content.unpack"
"""How oras marks a folder that it packed."""
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_NAME: Final = re.compile(r"[a-z0-9]+((\.|_|__|-+|/)[a-z0-9]+)*")
_REGISTRY: Final = re.compile(r"[A-Za-z0-9.-]+(:\d{1,5})?|\[[0-9a-fA-F:.]+\](:\d{1,5})?")
_TAG: Final = re.compile(r"\w[\w.-]{0,127}")


@dataclass(frozen=True, slots=True)
class OciRef:
    """`version` is a tag or a digest."""

    registry: str
    repository: str
    version: str

    @property
    def pinned(self) -> bool:
        """Whether the version is a digest."""
        return _DIGEST.fullmatch(self.version) is not None


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: a file of this path, or an archive where `packing` is given."""

    digest: str
    size: int
    path: str
    packing: Packing | None


def parse_reference(ref: SourceRef) -> OciRef:
    """Read `oci://registry/repository[:tag|@digest]`; a revision goes before tag and digest. Raises: SourceError."""
    text = ref.uri.removeprefix("oci://")
    try:
        container = oras.container.Container(text)
    except ValueError as error:
        raise _malformed(ref) from error
    registry, repository = str(container.registry), str(container.api_prefix)
    version = ref.revision or str(container.digest or container.tag)
    if not (
        text.startswith(f"{registry}/")
        and _REGISTRY.fullmatch(registry)
        and _NAME.fullmatch(repository)
        and (_DIGEST.fullmatch(version) or _TAG.fullmatch(version))
    ):
        raise _malformed(ref)
    return OciRef(registry, repository, version)


def digest_of(body: bytes) -> str:
    """The digest that names a manifest."""
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def read_layers(body: bytes, most: int) -> tuple[Layer, ...] | str:
    """A manifest's layers; or, for an index of exactly one manifest, that one's digest. Raises: SourceError."""
    try:
        document = json.loads(body)
        if "manifests" in document:
            return _only_manifest(document["manifests"])
        layers = document["layers"]
        if len(layers) > most:
            raise SourceError(AdapterReason.TOO_LARGE, f"the artifact has {len(layers)} layers; the limit is {most}")
        return tuple(_layer(layer) for layer in layers)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SourceError(AdapterReason.INVALID_SOURCE, "the artifact's manifest is no OCI manifest") from error


def _only_manifest(manifests: Any) -> str:
    if len(manifests) != 1 or not _DIGEST.fullmatch(manifests[0]["digest"]):
        message = f"the reference names an index of {len(manifests)} manifests: name one of them by its digest"
        raise SourceError(AdapterReason.INVALID_SOURCE, message)
    return str(manifests[0]["digest"])


def _layer(layer: Any) -> Layer:
    digest, size, kind = layer["digest"], layer["size"], layer["mediaType"]
    notes = layer.get("annotations") or {}
    if not _DIGEST.fullmatch(digest) or type(size) is not int or size < 0:
        raise SourceError(AdapterReason.INVALID_SOURCE, "a layer's digest is no sha256, or its size is no number")
    path = notes.get(_TITLE, "")
    if not isinstance(path, str) or not all(is_plain(part) for part in path.removeprefix("./").split("/") if path):
        message = f"a layer has the title {str(path)[:80]!r}: absolute paths and '..' are refused"
        raise SourceError(AdapterReason.INVALID_SOURCE, message)
    return Layer(digest, size, path.removeprefix("./"), _packing(kind, notes))


def _packing(kind: str, notes: Any) -> Packing | None:
    if re.search(r"[./+]tar\+(?!gzip$)", kind):
        raise SourceError(AdapterReason.INVALID_SOURCE, f"a layer is {kind!r}: pack it as tar or tar+gzip")
    if re.search(r"[./+]tar(\+|\.)gzip$", kind) or (notes.get(_UNPACK) == "true"):
        return Packing.TAR_GZIP
    return Packing.TAR if re.search(r"[./+]tar$", kind) and not _is_file(notes) else None


def _is_file(notes: Any) -> bool:
    """oras gives plain files the media type of a tar layer unless told otherwise; the title tells them apart."""
    return _TITLE in notes and not str(notes[_TITLE]).endswith(".tar")


def _malformed(ref: SourceRef) -> SourceError:
    message = f"{ref.uri!r}: write oci://REGISTRY/REPOSITORY:TAG or oci://REGISTRY/REPOSITORY@sha256:..."
    return SourceError(AdapterReason.INVALID_SOURCE, message)
