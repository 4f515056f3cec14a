"""Who an adapter is: runtime ids, and the names that requests use."""

import pytest

from motet_api.identity import AdapterRef, parse_adapter_ref, runtime_id


@pytest.mark.parametrize(
    ("adapter_namespace", "model_namespace", "expected"),
    [("team", "team", "churn@v1"), ("team", "models", "team/churn@v1")],
)
def test_a_runtime_id_has_the_namespace_only_where_it_is_not_the_models(
    adapter_namespace: str, model_namespace: str, expected: str
) -> None:
    assert runtime_id(adapter_namespace, model_namespace, "churn", "v1") == expected
    assert parse_adapter_ref(expected).name == "churn", "it is a name that requests may use, too"


def test_a_reference_has_three_parts() -> None:
    assert parse_adapter_ref("team/churn@v1") == AdapterRef("churn", "team", "v1")
    assert parse_adapter_ref("churn") == AdapterRef("churn")


@pytest.mark.parametrize("text", ["", "/churn", "churn@", "Churn", "a/b/c"])
def test_a_reference_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="not an adapter name"):
        parse_adapter_ref(text)
