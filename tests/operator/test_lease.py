"""The Lease: the table of what a candidate does, and the object that it writes."""

from datetime import UTC, datetime

import pytest

from motet_operator.running.lease import Lease, LeaseName, Step, make_lease, next_step, read_lease

NAME = LeaseName("motet-system", "motet-operator")
NOW = datetime(2026, 11, 24, 10, 0, 0, 5, tzinfo=UTC)


def held(by: str, seconds: float = 15) -> Lease:
    return Lease(by, seconds, "2026-11-24T09:00:00.000000Z", 3, "77")


@pytest.mark.parametrize(
    ("lease", "before", "unchanged", "step"),
    [
        (held("me"), None, 0, Step.RENEW),
        (held("me"), held("you"), 1000, Step.RENEW),
        (held(""), None, 0, Step.TAKE),
        (held("you"), None, 0, Step.WAIT),
        (held("you"), None, 14.9, Step.WAIT),
        (held("you"), None, 15, Step.TAKE),
        (held("you", seconds=60), None, 15, Step.WAIT),
        (None, None, 0, Step.CREATE),
        (None, held("me"), 0, Step.CREATE),
        (None, held(""), 0, Step.CREATE),
        (None, held("you"), 14.9, Step.WAIT),
        (None, held("you"), 15, Step.CREATE),
    ],
)
def test_the_table(lease: Lease | None, before: Lease | None, unchanged: float, step: Step) -> None:
    assert next_step(lease, before, "me", unchanged) is step


def test_a_new_lease() -> None:
    raw = make_lease(NAME, None, "me", 15, NOW)
    assert raw["metadata"] == {"name": "motet-operator", "namespace": "motet-system"}
    assert raw["spec"] == {
        "holderIdentity": "me",
        "leaseDurationSeconds": 15,
        "acquireTime": "2026-11-24T10:00:00.000005Z",
        "renewTime": "2026-11-24T10:00:00.000005Z",
        "leaseTransitions": 0,
    }


@pytest.mark.parametrize(
    ("old", "holder", "acquired", "transitions"),
    [
        (held("me"), "me", "2026-11-24T09:00:00.000000Z", 3),
        (held("you"), "me", "2026-11-24T10:00:00.000005Z", 4),
        (held("me"), "", "2026-11-24T10:00:00.000005Z", 3),
    ],
    ids=["renewed", "taken", "given back"],
)
def test_a_lease_in_the_place_of_another(old: Lease, holder: str, acquired: str, transitions: int) -> None:
    raw = make_lease(NAME, old, holder, 15, NOW)
    assert raw["metadata"]["resourceVersion"] == "77"
    assert (raw["spec"]["acquireTime"], raw["spec"]["leaseTransitions"]) == (acquired, transitions)
    assert read_lease(raw, 1).holder == holder


def test_a_lease_that_says_little() -> None:
    assert read_lease({"metadata": {"resourceVersion": "1"}}, 15) == Lease("", 15, "", 0, "1")


def test_where_it_is() -> None:
    assert NAME.path == "/apis/coordination.k8s.io/v1/namespaces/motet-system/leases/motet-operator"
    assert NAME.path.startswith(NAME.collection)
