"""Rules of the tree that no linter knows."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ("api", "operator", "gateway", "runtime")
SOURCES = sorted(path for part in PARTS for path in (ROOT / part / "src").rglob("*.py"))


def test_operator_folder_is_no_package() -> None:
    """`operator/__init__.py` would shadow the standard library's `operator` for anything started at the root."""
    assert not (ROOT / "operator" / "__init__.py").exists()
    code = "import operator; print(operator.__file__)"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert str(ROOT) not in out.stdout


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400, "split it: a file over 400 lines has more than one subject"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_grab_bag_modules(path: Path) -> None:
    assert path.stem not in {"utils", "util", "helpers", "helper", "common", "manager", "misc"}


def test_no_registry_host_is_named() -> None:
    """Mirrors differ from place to place: clients are configured outside the repository."""
    hosts = [*(f"{name}.org" for name in ("py" + "pi", "files.python" + "hosted", "proxy.go" + "lang"))]
    hosts += ["registry.np" + "mjs", "deb.deb" + "ian"]
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [ROOT / name for name in listed.split("\0") if name]
    found = [
        f"{path.relative_to(ROOT)}: {host}"
        for path in files
        if path.is_file()
        for host in hosts
        if host in path.read_text(errors="replace")
    ]
    assert found == []


def _spec_fields() -> list[tuple[str, str]]:
    """(class, field) of every type below a spec, read from the source of the two kinds."""
    fields = []
    for name in ("modeldeployment", "loraadapter", "objects"):
        tree = ast.parse((ROOT / f"api/src/motet_api/{name}.py").read_text())
        for cls in (node for node in tree.body if isinstance(node, ast.ClassDef)):
            if re.search(r"(Status|Counts|Summary|Meta|Condition|Model)$", cls.name) or "Enum" in ast.dump(cls):
                continue
            fields += [
                (cls.name, node.target.id)
                for node in cls.body
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
            ]
    return fields


@pytest.mark.parametrize(("cls", "field"), _spec_fields())
def test_every_spec_field_is_read(cls: str, field: str) -> None:
    """A field that no code reads promises what nobody does."""
    if field in {"api_version", "kind", "metadata", "spec", "status"}:
        return
    reading = re.compile(rf"\.{field}\b(?!=)")
    readers = [
        path for path in SOURCES if path.relative_to(ROOT).parts[0] != "api" and reading.search(path.read_text())
    ]
    assert readers, f"{cls}.{field} is read nowhere"
