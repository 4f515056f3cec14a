"""docs/complaints.md names tests that exist, and some for every complaint."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "complaints.md"
NAMED = re.compile(r"`([^`]+)`")


def rows(text: str) -> dict[str, list[str]]:
    """The tests of each complaint, from all tables of a page that end with a column of them."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[-1] != "tests" and set(cells[-1]) != {"-"}:
            assert len(cells) == 3, line
            assert cells[0] not in found, f"twice: {cells[0]}"
            found[cells[0]] = NAMED.findall(cells[2])
    return found


@cache
def names_in(path: Path) -> frozenset[str]:
    """The tests that pytest would collect from a file, read and not imported."""
    tree = ast.parse(path.read_text())
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in functions if node.name.startswith("test_"))


def missing(test: str) -> str:
    """What is wrong with `path::name`; empty if it is a test."""
    path, _, name = test.partition("::")
    file = ROOT / path
    if not (path.startswith("tests/") and file.name.startswith("test_") and file.is_file()):
        return f"{path} is no file of tests"
    return "" if name in names_in(file) else f"{path} has no test {name}"


COMPLAINTS = rows(PAGE.read_text())


@pytest.mark.parametrize("complaint", COMPLAINTS)
def test_every_complaint_has_tests_that_exist(complaint: str) -> None:
    assert COMPLAINTS[complaint], "name a test"
    assert [what for what in map(missing, COMPLAINTS[complaint]) if what] == []


def test_a_name_that_is_none_is_found() -> None:
    here = "tests/house/test_complaints.py"
    assert missing(f"{here}::test_a_name_that_is_none_is_found") == ""
    assert missing(f"{here}::missing") == f"{here} has no test missing"
    assert missing("tests/house/test_nowhere.py::test_x") == "tests/house/test_nowhere.py is no file of tests"
    assert missing("api/src/motet_api/names.py::test_x")


def test_the_page_is_read() -> None:
    assert len(COMPLAINTS) > 50
    assert rows("| a | b | tests |\n|---|---|---|\n| x | y | `p::q` `p::r` |\n| z | y | |\ntext") == {
        "x": ["p::q", "p::r"],
        "z": [],
    }
