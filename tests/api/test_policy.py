"""Which sources a namespace's policy takes, however they are spelled."""

import pytest

from motet_api.policy import NamespacePolicy

OURS = NamespacePolicy(allowed_sources=["https://good/team-a/*", "file:///adapters/team-a/*", "s3://ours/*"])


@pytest.mark.parametrize(
    "uri",
    [
        "https://good/team-a/churn",
        "https://good/team-a/churn..v1/..hidden/x...",
        "https://good/team-a/100%25/x",
        "file:///adapters/team-a/my%20topic",
        "s3://ours/a/b",
    ],
)
def test_what_a_pattern_fits_is_allowed(uri: str) -> None:
    assert OURS.allows(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "https://good/team-b/x",
        "https://good/team-a/../team-b/x",
        "https://good/team-a/%2e%2e/team-b/x",
        "https://good/team-a/%2E./team-b/x",
        "https://good/team-a/..%2fteam-b/x",
        "https://good/team-a/..%5Cteam-b",
        "https://good/team-a/..\\team-b",
        "https://good/team-a/%252e%252e/team-b",
        "https://good/team-a/.\t./team-b",
        "https://good/team-a/x/..",
        "https://good/team-a/..?x=1",
        "https://good/team-a/..;/team-b",
        "file:///adapters/team-a/../team-b/x",
        "s3://ours/../theirs/x",
    ],
)
def test_no_spelling_leads_out_of_a_pattern(uri: str) -> None:
    assert not OURS.allows(uri)
    if ".." in uri:
        assert not NamespacePolicy().allows(uri), "not even where everything is allowed"
