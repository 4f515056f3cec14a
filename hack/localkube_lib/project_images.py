"""The project's three images for local clusters: base, environment, code; run as their Dockerfiles say."""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from localkube_lib.base_image import base_layer
from localkube_lib.console import step
from localkube_lib.dockerfile import image_config
from localkube_lib.errors import LocalKubeError
from localkube_lib.oci import Image, Layer, Tree, make_image, make_layer
from localkube_lib.paths import REPOSITORY, cache_root

PARTS = ("operator", "gateway", "runtime")
_ENVIRONMENT = "/opt/motet/site-packages"
_CODE = "/opt/motet/src"
_LAYOUT = "1"
"""Part of the cache keys: raise it when the way the layers are put together changes."""


def project_image(part: str, tag: str = "dev") -> Image:
    """The image `motet.local/PART:TAG` of the working tree.

    Raises:
        LocalKubeError: there is no such part, or its environment cannot be installed.
    """
    if part not in PARTS:
        raise LocalKubeError(f"no image {part!r}: choose from {', '.join(PARTS)}")
    config = image_config(REPOSITORY / part / "Dockerfile")
    own = [entry for entry in config.env if not entry.startswith(("PYTHONPATH=", "PATH="))]
    path = ["PATH=/usr/local/bin:/usr/bin:/bin", f"PYTHONPATH={_CODE}:{_ENVIRONMENT}"]
    config = replace(config, env=(*own, *path))
    layers = [base_layer(), _environment_layer(part), _code_layer(part)]
    return make_image(f"motet.local/{part}:{tag}", layers, config)


def _environment_layer(part: str) -> Layer:
    lock = (REPOSITORY / "requirements" / f"{part}.txt").read_bytes()
    key = f"environment-{part}-" + hashlib.sha256(_LAYOUT.encode() + lock).hexdigest()[:16]
    with tempfile.TemporaryDirectory(dir=_scratch()) as folder:

        def trees() -> list[Tree]:
            with step(f"installing the {part} environment for its image"):
                _install(part, Path(folder))
            return [Tree(Path(folder), _ENVIRONMENT)]

        return make_layer(key, trees)


def _code_layer(part: str) -> Layer:
    packages = [REPOSITORY / "api/src/motet_api", REPOSITORY / part / "src" / f"motet_{part}"]
    sources = [path for package in packages for path in sorted(package.rglob("*")) if path.is_file()]
    sources = [path for path in sources if "__pycache__" not in path.parts]
    digest = hashlib.sha256(_LAYOUT.encode())
    for path in sources:
        digest.update(f"{path.relative_to(REPOSITORY)}\0".encode() + path.read_bytes() + b"\0")
    with tempfile.TemporaryDirectory(dir=_scratch()) as folder:

        def trees() -> list[Tree]:
            code, programs = Path(folder) / "src", Path(folder) / "bin"
            for package in packages:
                shutil.copytree(package, code / package.name, ignore=shutil.ignore_patterns("__pycache__"))
            _compile(code)
            programs.mkdir()
            program = programs / f"motet-{part}"
            program.write_text(
                f"#!/usr/bin/python3\nimport sys\n\nfrom motet_{part}.main import main\n\nsys.exit(main())\n"
            )
            program.chmod(0o755)
            return [Tree(code, _CODE), Tree(programs, "/usr/local/bin")]

        return make_layer(f"code-{part}-{digest.hexdigest()[:16]}", trees)


def _install(part: str, target: Path) -> None:
    environment = subprocess.run([str(REPOSITORY / "hack/venv"), "dev"], capture_output=True, text=True, check=False)
    if environment.returncode != 0:
        raise LocalKubeError(f"hack/venv dev failed: {environment.stderr.strip()[-2000:]}")
    venv = Path(environment.stdout.strip())
    command = [str(venv / "bin/uv"), "pip", "install", "--quiet", "--no-deps", "--python", str(venv / "bin/python")]
    command += ["--target", str(target), "-r", str(REPOSITORY / "requirements" / f"{part}.txt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LocalKubeError(f"installing requirements/{part}.txt failed: {done.stderr.strip()[-2000:]}")
    target.chmod(0o755)
    _compile(target)


def _compile(folder: Path) -> None:
    """Compile with unchecked hashes: files in a layer have no times, and the container's user could not write."""
    command = [sys.executable, "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash"]
    # Some packages ship files that are templates or for other versions of Python; their failure is no failure of ours.
    subprocess.run([*command, "-s", str(folder), str(folder)], capture_output=True, check=False)


def _scratch() -> Path:
    """A scratch folder on the cache's file system, so that packages are linked into it rather than copied."""
    folder = cache_root() / "scratch"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
