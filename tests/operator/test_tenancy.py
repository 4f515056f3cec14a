"""Which namespaces may put adapters on a model."""

from typing import Any

import pytest

from motet_operator.adapters.tenancy import not_allowed
from tests.operator.factories import NAMESPACE, model

LABELS = {"trusted": {"team": "speech", "tier": "gold"}, "half": {"team": "speech"}, "bare": {}}
SELECTOR = {"from": "Selector", "selector": {"matchLabels": {"team": "speech", "tier": "gold"}}}

ROWS: dict[str, tuple[dict[str, Any], str, bool]] = {
    "the model's own namespace": ({"from": "Same"}, NAMESPACE, True),
    "another one": ({"from": "Same"}, "trusted", False),
    "all": ({"from": "All"}, "bare", True),
    "selected": (SELECTOR, "trusted", True),
    "its own, though not selected": (SELECTOR, NAMESPACE, True),
    "one label is missing": (SELECTOR, "half", False),
    "no labels": (SELECTOR, "bare", False),
    "a namespace that nobody has seen": (SELECTOR, "unseen", False),
}


@pytest.mark.parametrize(("allowed", "namespace", "expected"), ROWS.values(), ids=ROWS)
def test_rows(allowed: dict[str, Any], namespace: str, expected: bool) -> None:
    message = not_allowed(model(adapters={"allowedNamespaces": allowed}), namespace, LABELS)
    assert (message == "") is expected
    assert expected or ("speech/llama" in message and (namespace in message))


def test_a_selector_is_of_no_use_where_namespaces_are_not_seen() -> None:
    given = model(adapters={"allowedNamespaces": SELECTOR})
    assert "--namespace" in not_allowed(given, "trusted", None)
    assert not_allowed(given, NAMESPACE, None) == ""


def test_a_model_that_cannot_be_understood_takes_no_stranger() -> None:
    given = model(replicas="many")
    assert "replicas" in not_allowed(given, "trusted", LABELS)
    assert not_allowed(given, NAMESPACE, LABELS) == ""
