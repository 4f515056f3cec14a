"""Every rule of the CRDs has a row in the table of refused objects, which the end-to-end tests put to an API server."""

import re
from typing import Any

import pytest

from tests.api.test_crd import NODES
from tests.e2e.admission_rows import CHANGED, CREATED, STATUS, Row

ROWS = [*CREATED.values(), *CHANGED.values(), *STATUS.values()]
RULES = [(path, rule) for path, node in NODES for rule in node.get("x-kubernetes-validations", [])]
MODEL_RULE = {"rule": "self.minReplicas <= self.maxReplicas", "message": "lower the one or raise the other"}


def field_of(path: str, rule: dict[str, Any]) -> str:
    """Where the API server says that the rule is broken, as a row writes it; nothing for the object as a whole."""
    return f"{path.partition('.')[2]}{rule.get('fieldPath', '')}".removeprefix(".")


def covers(row: Row, path: str, rule: dict[str, Any]) -> bool:
    """Whether the row's refusal is the rule's."""
    wrong, _, (field, remedy) = row
    kind = wrong.get("kind", "LoraAdapter")
    place = re.sub(r"\[\d+\]", "[]", field)
    return path.startswith(kind) and remedy in rule["message"] and field_of(path, rule) in {"", place}


@pytest.mark.parametrize(("path", "rule"), RULES, ids=[f"{path}: {rule['rule'][:40]}" for path, rule in RULES])
def test_a_rule_has_a_row(path: str, rule: dict[str, Any]) -> None:
    assert any(covers(row, path, rule) for row in ROWS), "add a refused and an accepted object to admission_rows.py"


def test_a_rule_without_a_row_is_noticed() -> None:
    assert len(RULES) > 20
    assert not any(covers(row, "ModelDeployment.spec.queue", MODEL_RULE) for row in ROWS)
