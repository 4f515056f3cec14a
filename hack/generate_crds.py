#!/usr/bin/env python3
"""Writes crds/ and the chart's copies of it from the types; with --check says what differs instead, and fails."""

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "api/src"))

from motet_api.crd import lora_adapter_crd, model_deployment_crd  # noqa: E402
from motet_api.names import GROUP  # noqa: E402

FOLDERS = (Path("crds"), Path("charts/motet/crds"))
HEADER = "# Generated from api/src/motet_api by `make crds`; do not edit.\n"


class PlainDumper(yaml.SafeDumper):
    """Writes a list that occurs twice twice: anchors would only puzzle readers."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: D102
        return True


def render(definition: dict[str, Any]) -> str:
    """One definition as YAML, in the order in which a reader looks for things."""
    return HEADER + yaml.dump(definition, Dumper=PlainDumper, sort_keys=False, width=120)


def files() -> dict[Path, str]:
    """Text by path, relative to the repository's root."""
    definitions = [model_deployment_crd(), lora_adapter_crd()]
    return {
        folder / f"{GROUP}_{definition['spec']['names']['plural']}.yaml": render(definition)
        for folder in FOLDERS
        for definition in definitions
    }


def drift(root: Path) -> list[Path]:
    """The files under `root` that are not what the types say."""
    return [
        path
        for path, text in files().items()
        if not (root / path).is_file() or (root / path).read_text(encoding="utf-8") != text
    ]


def main(words: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(prog="hack/generate_crds.py", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is out of date")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout to write to (default: this one)")
    options = parser.parse_args(words)
    stale = drift(options.root)
    if options.check:
        for path in stale:
            print(f"{path} is out of date: run 'make crds'", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        (options.root / path).parent.mkdir(parents=True, exist_ok=True)
        (options.root / path).write_text(files()[path], encoding="utf-8")
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
