"""The node's image store, and the pause image every pod sandbox runs."""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from localkube_lib import binaries
from localkube_lib.archive import config_digests
from localkube_lib.console import say, step
from localkube_lib.errors import LocalKubeError
from localkube_lib.oci import Image, ImageConfig, Layer, Tree, make_image, make_layer, write_archive

_LINKED_FROM = 32 * 1024 * 1024
"""Smaller layers are sent as data: that takes no longer."""


@dataclass(frozen=True, slots=True)
class ImageStore:
    """containerd's images in the namespace that Kubernetes uses."""

    ctr: Path
    socket: Path
    root: Path
    inside: Sequence[str]

    def digests(self) -> dict[str, str]:
        """Manifest digest by reference."""
        rows = [line.split() for line in self._ctr("images", "ls").splitlines()[1:]]
        return {row[0]: next(cell for cell in row if cell.startswith("sha256:")) for row in rows if row}

    def load(self, image: Image) -> bool:
        """Import an image unless it is there already. Returns whether anything was imported.

        Layers the node has are not sent, and large ones are linked into its store where that is on the same file
        system, so a layer of gigabytes takes neither the time nor the space of a copy.
        """
        if self.digests().get(image.reference) == image.digest:
            return False
        present = self._blobs()
        missing = [layer for layer in image.layers if layer.digest not in present]
        with step(f"importing {image.reference} ({sum(layer.size for layer in missing) / 1e6:.0f} MB of layers)"):
            large = [layer for layer in missing if layer.size >= _LINKED_FROM]
            for layer in large:
                self._link(layer)
            failure = self._import(image, self._blobs())
            if failure:
                # A layer that no image names may have been dropped just before it was to be kept.
                say(f"importing {image.reference} once more, with all its layers: {failure}")
                failure = self._import(image, frozenset())
            for layer in large:
                self._keep(layer, "")
        if failure:
            raise LocalKubeError(f"import of {image.reference} failed: {failure}")
        return True

    def load_archive(self, archive: Path) -> bool:
        """Import an OCI or Docker archive, unless its images are there. Returns whether anything was imported.

        Raises:
            LocalKubeError: the file is no image archive, or the import failed.
        """
        stored = self.digests()
        wanted = {_spelled(reference, stored): digest for reference, digest in config_digests(archive).items()}
        held = {name: self._config_digest(stored[name]) for name in wanted if name in stored}
        if wanted and held == wanted:
            return False
        with archive.open("rb") as stdin, step(f"importing {archive}"):
            process = self._importer(stdin)
            _, error = process.communicate()
        if process.returncode != 0:
            raise LocalKubeError(f"import of {archive} failed: {error.decode().strip()}")
        return True

    def _blobs(self) -> frozenset[str]:
        return frozenset(self._ctr("content", "ls", "-q").split())

    def _link(self, layer: Layer) -> None:
        """Give the store a layer as a hard link: it adopts a blob that lies in its folder under the expected digest.

        Whatever the store does not adopt is sent as data with the import.
        """
        algorithm, _, digest = layer.digest.partition(":")
        blob = self.root / "io.containerd.content.v1.content" / "blobs" / algorithm / digest
        blob.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):
            os.link(layer.path, blob)
        expected = ["--expected-digest", layer.digest, "--expected-size", str(layer.size)]
        with Path(layer.path).open("rb") as content:
            command = self._command("content", "ingest", *expected, f"layer-{digest}")
            subprocess.run(command, stdin=content, capture_output=True, check=False)
        self._keep(layer, "import")

    def _keep(self, layer: Layer, reason: str) -> None:
        """Have the store keep a layer although no image names it; an empty reason ends that."""
        command = self._command("content", "label", layer.digest, f"containerd.io/gc.root={reason}")
        subprocess.run(command, capture_output=True, check=False)

    def _import(self, image: Image, present: frozenset[str]) -> str:
        """Returns what went wrong, empty when nothing did."""
        process = self._importer(subprocess.PIPE)
        assert process.stdin is not None
        # An importer that gives up early says why on its standard error.
        with contextlib.suppress(BrokenPipeError):
            write_archive(image, process.stdin, present)
        _, error = process.communicate()
        return error.decode().strip() or "failed" if process.returncode else ""

    def _importer(self, stdin: IO[bytes] | int) -> subprocess.Popen[bytes]:
        command = self._command("images", "import", "--local", "--snapshotter", "overlayfs", "-")
        return subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def _config_digest(self, manifest: str) -> str:
        document = json.loads(self._ctr("content", "get", manifest))
        return str(document.get("config", {}).get("digest", ""))

    def _command(self, *arguments: str) -> list[str]:
        return [*self.inside, str(self.ctr), "--address", str(self.socket), "--namespace", "k8s.io", *arguments]

    def _ctr(self, *arguments: str) -> str:
        done = subprocess.run(self._command(*arguments), capture_output=True, text=True, check=False, timeout=60)
        if done.returncode != 0:
            raise LocalKubeError(f"ctr {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout


def _spelled(reference: str, stored: Iterable[str]) -> str:
    """A reference as the store spells it: a short one gets a registry and a tag."""
    tagged = reference if ":" in reference.rpartition("/")[2] else f"{reference}:latest"
    return next((name for name in stored if name == tagged or name.endswith(f"/{tagged}")), tagged)


def pause_image(reference: str) -> Image:
    """The image of a pod's sandbox: one static binary."""
    folder = binaries.build(binaries.PAUSE)
    layer = make_layer(f"pause-{binaries.PAUSE.key()}", lambda: [Tree(folder / "pause", "/pause")])
    return make_image(reference, [layer], ImageConfig(entrypoint=("/pause",), user="65535:65535"))
