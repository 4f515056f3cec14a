"""The operator's image holds no engine: importing every module of it loads none."""

import subprocess
import sys
from pathlib import Path

import motet_operator

ROOT = Path(motet_operator.__file__).parent
MODULES = sorted(
    ".".join(("motet_operator", *path.relative_to(ROOT).with_suffix("").parts))
    for path in ROOT.rglob("*.py")
    if path.stem not in {"__init__", "__main__"}
)


def test_no_module_loads_the_engine() -> None:
    code = (
        f"import sys\nsys.path[:] = {sys.path!r}\n"
        + "".join(f"import {module}\n" for module in MODULES)
        + "print(sorted({'torch', 'transformers', 'peft', 'safetensors', 'starlette'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
    assert "motet_operator.passes.decide" in MODULES


def test_the_reconciler_loads_no_library_of_the_stores() -> None:
    """It is one of two replicas on a budget of memory; what fetches is a process of its own."""
    code = (
        f"import sys\nsys.path[:] = {sys.path!r}\nimport motet_operator.operate\n"
        "print(sorted({'boto3', 'botocore', 'huggingface_hub', 'numpy', 'oras'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
