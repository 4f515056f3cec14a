"""What of a desired adapter a pod reads by itself: a path of its own, or one in a claim, and nothing beside."""

from pathlib import Path

import pytest

from motet_api.reasons import AdapterReason
from motet_runtime.adapters.sources import local_path
from motet_runtime.errors import AdapterError


@pytest.fixture
def claims(tmp_path: Path) -> Path:
    (tmp_path / "claims" / "adapters" / "topic").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    (tmp_path / "claims" / "adapters" / "link").symlink_to(tmp_path / "secret")
    return tmp_path / "claims"


def test_paths_and_claims(claims: Path) -> None:
    assert local_path("file:///adapters/my%20topic", claims) == Path("/adapters/my topic")
    assert local_path("pvc://adapters/topic", claims) == claims / "adapters" / "topic"


@pytest.mark.parametrize(
    ("uri", "reason", "said"),
    [
        ("pvc://other/topic", AdapterReason.SOURCE_NOT_MOUNTED, "spec.adapters.claimNames"),
        ("pvc://../secret", AdapterReason.SOURCE_NOT_MOUNTED, "not mounted"),
        ("pvc://adapters/../../secret", AdapterReason.SOURCE_NOT_ALLOWED, "write the path that is meant"),
        ("file:///adapters/mine/../yours", AdapterReason.SOURCE_NOT_ALLOWED, "write the path that is meant"),
        ("file:///adapters/mine/%2e%2E/yours", AdapterReason.SOURCE_NOT_ALLOWED, "write the path that is meant"),
        ("file:///adapters/mine/.\t./yours", AdapterReason.SOURCE_NOT_ALLOWED, "write the path that is meant"),
        ("pvc://adapters/link", AdapterReason.SOURCE_NOT_FOUND, "leads out"),
        ("https://example.com/topic", AdapterReason.SOURCE_NOT_FOUND, "adapter store"),
        ("s3://bucket/topic", AdapterReason.SOURCE_NOT_FOUND, "adapter store"),
    ],
)
def test_what_is_refused(claims: Path, uri: str, reason: AdapterReason, said: str) -> None:
    with pytest.raises(AdapterError, match=said) as refused:
        local_path(uri, claims)
    assert refused.value.reason is reason
