"""Which namespaces may put adapters on a model."""

from typing import Any

import pytest

from motet_api.policy import NamespacePolicy, Policy
from motet_api.reasons import AdapterReason
from motet_operator.adapters.tenancy import not_allowed, source_refusal
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


@pytest.mark.parametrize(
    ("uri", "remedy"),
    [
        ("file:///adapters/team-a/../team-b", "write the path that is meant"),
        ("file:///adapters/team-b", "administrator"),
    ],
)
def test_a_source_that_pods_must_not_read(uri: str, remedy: str) -> None:
    policy = Policy(default=NamespacePolicy(allowed_sources=["file:///adapters/team-a/*"]))
    refused = source_refusal(uri, "team-a", policy)
    assert refused is not None
    assert refused.reason is AdapterReason.SOURCE_NOT_ALLOWED
    assert remedy in refused.message
    assert source_refusal("file:///adapters/team-a/voice", "team-a", policy) is None
