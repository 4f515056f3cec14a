"""The node's image store, and the pause image every pod sandbox runs."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from localkube_lib import binaries
from localkube_lib.console import say, step
from localkube_lib.errors import LocalKubeError
from localkube_lib.oci import Image, ImageConfig, Tree, make_image, make_layer, write_archive


@dataclass(frozen=True, slots=True)
class ImageStore:
    """containerd's images in the namespace that Kubernetes uses."""

    ctr: Path
    socket: Path
    inside: Sequence[str]

    def digests(self) -> dict[str, str]:
        """Manifest digest by reference."""
        rows = [line.split() for line in self._ctr("images", "ls").splitlines()[1:]]
        return {row[0]: next(cell for cell in row if cell.startswith("sha256:")) for row in rows if row}

    def load(self, image: Image) -> bool:
        """Import an image unless it is there already; layers the node has are not sent again.

        Returns whether anything was imported.
        """
        if self.digests().get(image.reference) == image.digest:
            return False
        present = frozenset(self._ctr("content", "ls", "-q").split())
        size = sum(layer.size for layer in image.layers if layer.digest not in present)
        with step(f"importing {image.reference} ({size / 1e6:.0f} MB of layers)"):
            process = self._popen("images", "import", "--local", "--snapshotter", "overlayfs", "-")
            assert process.stdin is not None
            try:
                write_archive(image, process.stdin, present)
            except BrokenPipeError:
                say(f"import of {image.reference} broke off")
            _, error = process.communicate()
        if process.returncode != 0:
            raise LocalKubeError(f"import of {image.reference} failed: {error.decode().strip()}")
        return True

    def load_archive(self, archive: IO[bytes]) -> str:
        """Import an OCI or Docker archive; returns what ctr says."""
        process = self._popen("images", "import", "--local", "--snapshotter", "overlayfs", "-", stdin=archive)
        out, error = process.communicate()
        if process.returncode != 0:
            raise LocalKubeError(f"import failed: {error.decode().strip()}")
        return out.decode()

    def _command(self, *arguments: str) -> list[str]:
        return [*self.inside, str(self.ctr), "--address", str(self.socket), "--namespace", "k8s.io", *arguments]

    def _popen(self, *arguments: str, stdin: IO[bytes] | int = subprocess.PIPE) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command(*arguments), stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def _ctr(self, *arguments: str) -> str:
        done = subprocess.run(self._command(*arguments), capture_output=True, text=True, check=False, timeout=60)
        if done.returncode != 0:
            raise LocalKubeError(f"ctr {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout


def pause_image(reference: str) -> Image:
    """The image of a pod's sandbox: one static binary."""
    folder = binaries.build(binaries.PAUSE)
    layer = make_layer(f"pause-{binaries.PAUSE.key()}", lambda: [Tree(folder / "pause", "/pause")])
    return make_image(reference, [layer], ImageConfig(entrypoint=("/pause",), user="65535:65535"))
