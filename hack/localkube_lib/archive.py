"""What an image archive says of itself: read from its index, without reading its layers."""

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

from localkube_lib.errors import LocalKubeError


def config_digests(archive: Path) -> dict[str, str]:
    """Digest of the image's config by reference, for an OCI or a Docker archive.

    The config names the layers by content, so it identifies the image in both forms; the manifest's digest does not,
    as an importer writes one of its own for a Docker archive.

    Raises:
        LocalKubeError: the file is no image archive.
    """
    try:
        with tarfile.open(archive, "r:*") as tar:
            names = set(tar.getnames())
            if "manifest.json" in names:
                return _docker(tar)
            if "index.json" in names:
                return _oci(tar)
    except (tarfile.TarError, OSError, KeyError, ValueError) as error:
        raise LocalKubeError(f"{archive}: {error}") from error
    raise LocalKubeError(f"{archive}: neither an OCI archive (index.json) nor a Docker archive (manifest.json)")


def _docker(tar: tarfile.TarFile) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in json.loads(_content(tar, "manifest.json")):
        digest = "sha256:" + hashlib.sha256(_content(tar, entry["Config"])).hexdigest()
        found |= dict.fromkeys(entry.get("RepoTags") or (), digest)
    return found


def _oci(tar: tarfile.TarFile) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in json.loads(_content(tar, "index.json"))["manifests"]:
        reference = (entry.get("annotations") or {}).get("io.containerd.image.name")
        manifest: dict[str, Any] = json.loads(_content(tar, "blobs/" + entry["digest"].replace(":", "/")))
        if reference and "config" in manifest:
            found[reference] = str(manifest["config"]["digest"])
    return found


def _content(tar: tarfile.TarFile, name: str) -> bytes:
    member = tar.extractfile(name)
    if member is None:
        raise KeyError(name)
    return member.read()
