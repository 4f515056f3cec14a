"""The base image of the project's images: Debian's Python 3.11, a shell, and what they link to.

Unpacked from Debian packages, without their maintainer scripts, as no registry need be reachable.
"""

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from localkube_lib.console import step
from localkube_lib.errors import LocalKubeError
from localkube_lib.oci import Image, ImageConfig, Layer, Tree, make_image, make_layer

PACKAGES = (
    *("base-files", "libc6", "libgcc-s1", "libstdc++6", "libgomp1", "libcrypt1", "zlib1g", "tzdata", "media-types"),
    *("dash", "coreutils", "libacl1", "libattr1", "libselinux1", "libpcre2-8-0", "libgmp10", "libssl3", "procps"),
    *("libproc2-0", "libsystemd0", "libcap2", "libgcrypt20", "libgpg-error0", "liblz4-1", "libzstd1"),
    *("python3-minimal", "python3.11-minimal", "python3.11", "libpython3.11-minimal", "libpython3.11-stdlib"),
    *("libexpat1", "libffi8", "libbz2-1.0", "liblzma5", "libsqlite3-0", "libreadline8", "libncursesw6", "libtinfo6"),
    *("libuuid1", "libdb5.3"),
)
_ACCOUNTS = "root:x:0:0:root:/root:/bin/sh\nnonroot:x:65532:65532:nonroot:/tmp:/bin/sh\n"
_GROUP = "root:x:0:\nnonroot:x:65532:\n"
_LAYOUT = "2"
"""Part of the cache key: raise it when the way the layer is put together changes."""


def base_layer() -> Layer:
    """The base image's only layer.

    Raises:
        LocalKubeError: the packages could not be downloaded.
    """
    key = "base-" + hashlib.sha256(f"{_LAYOUT} {PACKAGES} {_ACCOUNTS}".encode()).hexdigest()[:16]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"

        def trees() -> list[Tree]:
            with step("unpacking the base image from Debian packages"):
                _unpack(Path(folder), root)
            return [Tree(path, f"/{path.name}") for path in sorted(root.iterdir())]

        return make_layer(key, trees)


def python_image(reference: str = "motet.local/python:3.11") -> Image:
    """The base image by itself, for pods that need nothing but the standard library."""
    config = ImageConfig(entrypoint=("python3",), env=("PATH=/usr/local/bin:/usr/bin:/bin",), user="65532:65532")
    return make_image(reference, [base_layer()], config)


def _unpack(folder: Path, root: Path) -> None:
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    downloads = folder / "packages"
    downloads.mkdir()
    _run("apt-get", "update", "-qq")
    _run("apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", *PACKAGES, cwd=downloads)
    for package in sorted(downloads.glob("*.deb")):
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as archive:
            _run("tar", "-x", "--keep-directory-symlink", "-C", str(root), stdin=archive.stdout)
    for name in ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/lintian"):
        shutil.rmtree(root / name, ignore_errors=True)
    (root / "etc/passwd").write_text(_ACCOUNTS)
    (root / "etc/group").write_text(_GROUP)
    # Kubernetes mounts these; their targets must exist.
    for name in ("proc", "sys", "dev", "run", "var/run/secrets", "tmp", "mnt"):
        if not (root / name).exists():
            (root / name).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    _run("ldconfig", "-r", str(root))


def _run(*command: str, cwd: Path | None = None, stdin: object = None) -> None:
    done = subprocess.run(command, cwd=cwd, stdin=stdin, capture_output=True, text=True, check=False)  # type: ignore[call-overload]
    if done.returncode != 0:
        raise LocalKubeError(f"{' '.join(command[:3])} failed: {done.stderr.strip()[-2000:]}")
