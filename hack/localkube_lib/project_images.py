"""The project's three images for local clusters: base, environment, code; run as their Dockerfiles say."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
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
_PROGRAMS = "/opt/motet/bin"
_KERNELS = "/opt/motet/kernels"
_ENVIRONMENT_LAYOUT = "1"
_CODE_LAYOUT = "2"
"""Parts of the cache keys: raise one when the way that layer is put together changes."""
_PYTHON = "3.11"
"""The base image's version."""


def project_image(part: str, tag: str = "dev") -> Image:
    """The image `motet.local/PART:TAG` of the working tree.

    Raises:
        LocalKubeError: there is no such part, or its environment cannot be installed.
    """
    if part not in PARTS:
        raise LocalKubeError(f"no image {part!r}: choose from {', '.join(PARTS)}")
    config = image_config(REPOSITORY / part / "Dockerfile")
    # The Dockerfiles install into a virtual environment; here its place is taken by two folders on Python's path.
    defaults = {"PATH": f"{_PROGRAMS}:/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": f"{_CODE}:{_ENVIRONMENT}"}
    named = {entry.partition("=")[0] for entry in config.env}
    config = replace(config, env=(*config.env, *(f"{k}={v}" for k, v in defaults.items() if k not in named)))
    layers = [base_layer(), _environment_layer(part), *_kernel_layers(part), _code_layer(part)]
    return make_image(f"motet.local/{part}:{tag}", layers, config)


def _environment_layer(part: str) -> Layer:
    lock = (REPOSITORY / "requirements" / f"{part}.txt").read_bytes()
    key = f"environment-{part}-" + hashlib.sha256(_ENVIRONMENT_LAYOUT.encode() + lock).hexdigest()[:16]
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
    small = _small_files({package.name for package in packages})
    digest = hashlib.sha256(f"{_CODE_LAYOUT} {sorted(small.items())}".encode())
    for path in sources:
        digest.update(f"{path.relative_to(REPOSITORY)}\0".encode() + path.read_bytes() + b"\0")
    with tempfile.TemporaryDirectory(dir=_scratch()) as folder:

        def trees() -> list[Tree]:
            code, programs = Path(folder + _CODE), Path(folder + _PROGRAMS)
            for package in packages:
                shutil.copytree(package, code / package.name, ignore=shutil.ignore_patterns("__pycache__"))
            _compile(code)
            programs.mkdir()
            for name in ("python", "python3"):
                (programs / name).symlink_to("/usr/bin/python3")
            for name, text in small.items():
                path = Path(folder + name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
                path.chmod(0o755 if path.parent == programs else 0o644)
            return [Tree(code, _CODE), Tree(programs, _PROGRAMS)]

        return make_layer(f"code-{part}-{digest.hexdigest()[:16]}", trees)


def _kernel_layers(part: str) -> list[Layer]:
    """The runtime's kernels, compiled for this machine: what `RUN` does in its Dockerfile.

    The compiler notes where the source lies and what time it has, so it is run where the image's code will be, in a
    mount namespace of its own.
    """
    python = Path(_interpreter())
    if part != "runtime" or python.is_relative_to("/opt"):
        return []
    engine = REPOSITORY / "runtime/src/motet_runtime/engine"
    digest = hashlib.sha256((REPOSITORY / "requirements/runtime.txt").read_bytes() + _processor().encode())
    for name in ("kernels_cpu.py", "precompile.py"):
        digest.update((engine / name).read_bytes())
    with tempfile.TemporaryDirectory(dir=_scratch()) as folder:

        def trees() -> list[Tree]:
            code, kernels = Path(folder, "code"), Path(folder, "kernels")
            kernels.mkdir()
            for package in (REPOSITORY / "api/src/motet_api", REPOSITORY / "runtime/src/motet_runtime"):
                shutil.copytree(package, code / package.name, ignore=shutil.ignore_patterns("__pycache__"))
            for path in code.rglob("*.py"):
                os.utime(path, (0, 0))  # as in a layer, where files have no times
            packages = subprocess.run(
                [str(REPOSITORY / "hack/venv"), "dev"], capture_output=True, text=True, check=True
            ).stdout.strip()
            script = f"mount -t tmpfs none /opt && mkdir -p {_CODE} && mount --bind {code} {_CODE} && exec "
            script += f"{packages}/bin/python -m motet_runtime.engine.precompile {kernels}"
            environment = {**os.environ, "PYTHONPATH": _CODE, "PYTHONDONTWRITEBYTECODE": "1"}
            with step("compiling the runtime's kernels for its image"):
                done = subprocess.run(
                    ["unshare", "--mount", "sh", "-c", script],
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=False,
                )
            if done.returncode != 0:
                raise LocalKubeError(f"compiling the kernels failed: {done.stderr.strip()[-2000:]}")
            return [Tree(kernels, _KERNELS)]

        return [make_layer(f"kernels-{digest.hexdigest()[:16]}", trees)]


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line for line in lines if line.startswith("model name")), "")


def _small_files(packages: set[str]) -> dict[str, str]:
    """What an installer would write beside the code, from pyproject.toml: programs, and the distribution's metadata."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    metadata = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    files = {f"{_CODE}/{project['name']}-{project['version']}.dist-info/METADATA": metadata}
    for program, target in project["scripts"].items():
        module, _, function = target.partition(":")
        if module.partition(".")[0] in packages:
            files[f"{_PROGRAMS}/{program}"] = (
                f"#!/usr/bin/python3\nimport sys\n\nfrom {module} import {function}\n\nsys.exit({function}())\n"
            )
    return files


def _install(part: str, target: Path) -> None:
    environment = subprocess.run([str(REPOSITORY / "hack/venv"), "dev"], capture_output=True, text=True, check=False)
    if environment.returncode != 0:
        raise LocalKubeError(f"hack/venv dev failed: {environment.stderr.strip()[-2000:]}")
    command = [f"{environment.stdout.strip()}/bin/uv", "pip", "install", "--quiet", "--no-deps"]
    command += ["--python", _interpreter(), "--target", str(target)]
    command += ["-r", str(REPOSITORY / "requirements" / f"{part}.txt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LocalKubeError(f"installing requirements/{part}.txt failed: {done.stderr.strip()[-2000:]}")
    target.chmod(0o755)
    _compile(target)


def _interpreter() -> str:
    """A Python of the base image's version: byte code and wheels are for one version only."""
    if f"{sys.version_info.major}.{sys.version_info.minor}" == _PYTHON:
        return sys.executable
    found = shutil.which(f"python{_PYTHON}")
    if found is None:
        raise LocalKubeError(f"building images needs python{_PYTHON}, the base image's version")
    return found


def _compile(folder: Path) -> None:
    """Compile with unchecked hashes: files in a layer have no times, and the container's user could not write."""
    command = [_interpreter(), "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash"]
    # Some packages ship files that are templates or for other versions of Python; their failure is no failure of ours.
    subprocess.run([*command, "-s", str(folder), str(folder)], capture_output=True, check=False)


def _scratch() -> Path:
    """A scratch folder on the cache's file system, so that packages are linked into it rather than copied."""
    folder = cache_root() / "scratch"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
