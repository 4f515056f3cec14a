"""Wrong objects are refused by the API server itself, each with a message that names the field and the remedy."""

import json
from collections.abc import Iterator

import pytest

from demo_lib.installation import Installation
from tests.e2e.admission_rows import CHANGED, CREATED, NAMESPACE, STATUS, lora, named
from tests.e2e.objects import Manifest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


class Admission:
    """Asks the API server what it would say; nothing is stored."""

    def __init__(self, installation: Installation) -> None:
        self._kubectl = installation.cluster.kubectl

    def says(self, verb: str, manifest: Manifest) -> str:
        """What kubectl prints."""
        return self._kubectl(verb, "--dry-run=server", "-f", "-", stdin=json.dumps(manifest), check=False)

    def says_to_status(self, patch: Manifest) -> str:
        """What kubectl prints when the status of the stored object is changed."""
        options = ("--subresource=status", "--dry-run=server", "--type=merge", f"--patch={json.dumps(patch)}")
        return self._kubectl("-n", NAMESPACE, "patch", "lora", "stored", *options, check=False)


@pytest.fixture(scope="module")
def admission(installation: Installation) -> Iterator[Admission]:
    """A namespace with the LoraAdapter that the changes are made to."""
    kubectl = installation.cluster.kubectl
    kubectl("create", "namespace", NAMESPACE)
    kubectl("apply", "-f", "-", stdin=json.dumps(named(lora(), "stored")))
    yield Admission(installation)
    kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.mark.parametrize(("wrong", "right", "message"), CREATED.values(), ids=CREATED)
def test_new_objects(admission: Admission, wrong: Manifest, right: Manifest, message: tuple[str, str]) -> None:
    refusal = admission.says("create", wrong)
    assert "created" not in refusal
    for part in message:
        assert part in refusal
    assert "created (server dry run)" in admission.says("create", right)


@pytest.mark.parametrize(("wrong", "right", "message"), CHANGED.values(), ids=CHANGED)
def test_changes(admission: Admission, wrong: Manifest, right: Manifest, message: tuple[str, str]) -> None:
    refusal = admission.says("apply", named(wrong, "stored"))
    assert "configured" not in refusal
    for part in message:
        assert part in refusal
    accepted = admission.says("apply", named(right, "stored"))
    assert "configured (server dry run)" in accepted or "unchanged (server dry run)" in accepted


@pytest.mark.parametrize(("wrong", "right", "message"), STATUS.values(), ids=STATUS)
def test_statuses(admission: Admission, wrong: Manifest, right: Manifest, message: tuple[str, str]) -> None:
    refusal = admission.says_to_status(wrong)
    assert "patched" not in refusal
    for part in message:
        assert part in refusal
    assert "patched" in admission.says_to_status(right)
