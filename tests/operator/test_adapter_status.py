"""Tables of what is said of a LoraAdapter: residency, the split in effect, and Ready."""

from dataclasses import replace
from typing import Any

import pytest

from motet_api.loraadapter import LoraAdapterStatus, TrafficTarget
from motet_api.reasons import AdapterReason
from motet_operator.conditions import find
from motet_operator.snapshot import PodState, Snapshot
from motet_operator.views import Adapter
from tests.operator.factories import DIGEST, KEY, NAMESPACE, adapter, decided, holds, model, settled, state

R = AdapterReason
V1, V2 = "voice@v1", "voice@v2"
HALF = {"v1": 1, "v2": 1}


def status_of(given: Adapter, *pods: PodState) -> LoraAdapterStatus:
    decision = decided(settled(model(), (given,), pods))
    assert decision.adapter_statuses is not None
    return decision.adapter_statuses[NAMESPACE, "voice"]


def split(status: LoraAdapterStatus) -> dict[str, int]:
    return {target.version: target.weight for target in status.traffic}


def with_traffic(given: Adapter, **weights: int) -> Adapter:
    """The adapter with a split in effect already."""
    targets = [TrafficTarget(version=version, weight=weight) for version, weight in weights.items()]
    return replace(given, status=LoraAdapterStatus(traffic=targets))


def ready(status: LoraAdapterStatus) -> tuple[str, str]:
    found = find(status.conditions, "Ready")
    assert found is not None
    return found.status, found.reason


def resident(status: LoraAdapterStatus, version: str) -> tuple[str, str]:
    entry = next(entry for entry in status.versions if entry.name == version)
    found = find(entry.conditions, "Resident")
    assert found is not None
    return found.status, found.reason


ONE = adapter()
TWO = adapter(versions=("v1", "v2"), traffic=HALF)

ROWS: dict[str, tuple[Adapter, tuple[PodState, ...], dict[str, int], tuple[str, str]]] = {
    "resident": (ONE, (state(holds(V1)),), {"v1": 1}, ("True", "Ready")),
    "new and loading: no split yet": (ONE, (state(holds((V1, R.LOADING))),), {}, ("False", "Progressing")),
    "new and not told yet": (ONE, (state(holds()),), {}, ("False", "Progressing")),
    "both resident": (TWO, (state(holds(V1, V2)),), HALF, ("True", "Ready")),
    "the new version loads: the old split stays": (
        with_traffic(TWO, v1=1),
        (state(holds(V1, (V2, R.LOADING))),),
        {"v1": 1},
        ("False", "Progressing"),
    ),
    "resident on one of two ready pods only": (
        with_traffic(TWO, v1=1),
        (state(holds(V1, V2)), state(holds(V1, (V2, R.LOADING)), name="pod-b")),
        {"v1": 1},
        ("False", "Progressing"),
    ),
    "a starting pod does not hold it back": (
        with_traffic(TWO, v1=1),
        (state(holds(V1, V2)), state(holds(), name="pod-b", ready=False)),
        HALF,
        ("True", "Ready"),
    ),
    "a starting pod that is silent does not either": (
        with_traffic(TWO, v1=1),
        (state(holds(V1, V2)), state(None, name="pod-b", ready=False)),
        HALF,
        ("True", "Ready"),
    ),
    "one failed for good: its share is left out": (
        TWO,
        (state(holds(V1, (V2, R.DIGEST_MISMATCH))),),
        {"v1": 1},
        ("False", "DigestMismatch"),
    ),
    "one with a share failed for good on one of two pods: the other pod serves it": (
        with_traffic(TWO, v1=1, v2=1),
        (state(holds(V1, V2)), state(holds(V1, (V2, R.RANK_TOO_LARGE)), name="pod-b")),
        HALF,
        ("False", "RankTooLarge"),
    ),
    "one with a share failed for good on one pod, the other is silent: it may serve it": (
        with_traffic(TWO, v1=1, v2=1),
        (state(holds(V1, (V2, R.RANK_TOO_LARGE))), state(None, name="pod-b")),
        HALF,
        ("False", "RankTooLarge"),
    ),
    "one without a share failed for good on one of two pods: it gets none": (
        with_traffic(TWO, v1=1),
        (state(holds(V1, V2)), state(holds(V1, (V2, R.RANK_TOO_LARGE)), name="pod-b")),
        {"v1": 1},
        ("False", "RankTooLarge"),
    ),
    "one with a share failed for good everywhere: the other gets its share": (
        with_traffic(TWO, v1=1, v2=1),
        (state(holds(V1, (V2, R.RANK_TOO_LARGE))),),
        {"v1": 1},
        ("False", "RankTooLarge"),
    ),
    "one failed for good, the other loads": (
        TWO,
        (state(holds((V1, R.LOADING), (V2, R.DIGEST_MISMATCH))),),
        {},
        ("False", "DigestMismatch"),
    ),
    "the only one failed for good": (
        ONE,
        (state(holds((V1, R.CORRUPT_WEIGHTS))),),
        {},
        ("False", "CorruptWeights"),
    ),
    "the new one failed for good: the old one keeps all": (
        with_traffic(adapter(versions=("v1", "v2"), traffic={"v2": 1}), v1=1),
        (state(holds(V1, (V2, R.RANK_TOO_LARGE))),),
        {"v1": 1},
        ("False", "RankTooLarge"),
    ),
    "one may heal: the old split stays": (
        with_traffic(TWO, v1=1),
        (state(holds(V1, (V2, R.FETCH_FAILED))),),
        {"v1": 1},
        ("False", "FetchFailed"),
    ),
    "one may heal, and there is no split yet: the other serves": (
        TWO,
        (state(holds(V1, (V2, R.FETCH_FAILED))),),
        {"v1": 1},
        ("False", "FetchFailed"),
    ),
    "a version without weight failed: the split is in effect all the same": (
        adapter(versions=("v1", "v2"), traffic={"v1": 1, "v2": 0}),
        (state(holds(V1, (V2, R.UNSAFE_FORMAT))),),
        {"v1": 1},
        ("False", "UnsafeFormat"),
    ),
    "a ready pod is silent: nothing moves": (
        with_traffic(TWO, v1=1),
        (state(holds(V1, V2)), state(None, name="pod-b")),
        {"v1": 1},
        ("Unknown", "PodUnreachable"),
    ),
    "a ready pod is silent, but another says it failed": (
        with_traffic(TWO, v1=1),
        (state(holds(V1, (V2, R.DIGEST_MISMATCH))), state(None, name="pod-b")),
        {"v1": 1},
        ("False", "DigestMismatch"),
    ),
    "no pod: nothing moves": (with_traffic(TWO, v1=3), (), {"v1": 3}, ("False", "NoPods")),
    "a version was removed: it leaves the split at once": (
        with_traffic(adapter(versions=("v2",)), v1=1, v2=1),
        (state(holds((V2, R.LOADING))),),
        {"v2": 1},
        ("False", "Progressing"),
    ),
    "bytes of another source are not this version": (
        ONE,
        (state(holds(V1, uri="pvc://adapters/y")),),
        {},
        ("False", "Progressing"),
    ),
    "no pod is ready, those that run hold it": (
        ONE,
        (state(holds(V1), ready=False),),
        {"v1": 1},
        ("False", "Progressing"),
    ),
    "no pod is ready, one answers and one does not yet": (
        ONE,
        (state(holds(V1), ready=False), state(None, name="pod-b", ready=False)),
        {"v1": 1},
        ("False", "Progressing"),
    ),
}


@pytest.mark.parametrize(("given", "pods", "traffic", "condition"), ROWS.values(), ids=ROWS)
def test_split_and_ready(
    given: Adapter, pods: tuple[PodState, ...], traffic: dict[str, int], condition: tuple[str, str]
) -> None:
    status = status_of(given, *pods)
    assert split(status) == traffic
    assert ready(status) == condition


RESIDENT: dict[str, tuple[tuple[PodState, ...], tuple[str, str], tuple[int, int]]] = {
    "on all": ((state(holds(V1)), state(holds(V1), name="pod-b")), ("True", "Resident"), (2, 2)),
    "on one": ((state(holds(V1)), state(holds((V1, R.LOADING)), name="pod-b")), ("False", "Loading"), (1, 2)),
    "failed on one": (
        (state(holds(V1)), state(holds((V1, R.SOURCE_NOT_FOUND)), name="pod-b")),
        ("False", "SourceNotFound"),
        (1, 2),
    ),
    "one is silent": ((state(holds(V1)), state(None, name="pod-b")), ("Unknown", "PodUnreachable"), (1, 2)),
    "no pods": ((), ("Unknown", "NoPods"), (0, 0)),
    "a starting one does not count": (
        (state(holds(V1)), state(holds(), name="pod-b", ready=False)),
        ("True", "Resident"),
        (1, 1),
    ),
}


@pytest.mark.parametrize(("pods", "condition", "counts"), RESIDENT.values(), ids=RESIDENT)
def test_resident(pods: tuple[PodState, ...], condition: tuple[str, str], counts: tuple[int, int]) -> None:
    status = status_of(ONE, *pods)
    assert resident(status, "v1") == condition
    assert (status.versions[0].ready_on, status.versions[0].pods) == counts


def test_silence_keeps_counts_and_facts() -> None:
    first = status_of(ONE, state(holds(V1, size_bytes=77)), state(holds(V1), name="pod-b"))
    silent = status_of(replace(ONE, status=first), state(None), state(None, name="pod-b"))
    version = silent.versions[0]
    assert (version.ready_on, version.pods) == (2, 2)
    assert (version.digest, version.rank, version.size_bytes) == (DIGEST, 8, 77)
    assert resident(silent, "v1") == ("Unknown", "PodUnreachable")


def test_summaries_are_for_people() -> None:
    given = adapter(versions=("v1", "v2"), traffic={"v1": 2, "v2": 1})
    status = status_of(given, state(holds(V1, V2)))
    assert (status.summary.traffic, status.summary.versions) == ("v1=66.7 v2=33.3", "2/2")
    broken = status_of(given, state(holds(V1, (V2, R.DIGEST_MISMATCH))))
    assert (broken.summary.traffic, broken.summary.versions) == ("v1=100", "1/2")


def test_the_message_says_what_happens_to_the_share() -> None:
    status = status_of(TWO, state(holds(V1, (V2, R.DIGEST_MISMATCH), message="bytes are others")))
    found = find(status.conditions, "Ready")
    assert found is not None
    assert found.message == ("v2: bytes are others (on pod-a); the share of v2 goes to the versions that are resident")


def orphaned(given: Adapter) -> LoraAdapterStatus:
    statuses: Any = decided(Snapshot(KEY, None, (given,))).adapter_statuses
    status: LoraAdapterStatus = statuses[NAMESPACE, "voice"]
    return status


def test_no_model() -> None:
    status = orphaned(with_traffic(ONE, v1=1))
    assert ready(status) == ("False", "ModelDeploymentNotFound")
    assert resident(status, "v1") == ("Unknown", "ModelDeploymentNotFound")
    assert status.traffic == []
    assert status.summary.versions == "0/1"


def test_a_spec_that_cannot_be_understood_is_named() -> None:
    given = replace(with_traffic(ONE, v1=1), spec=None, error="spec.versions: too strange")
    for status in (status_of(given), orphaned(given)):
        assert ready(status) == ("False", "InvalidSpec")
        assert split(status) == {"v1": 1}, "what is served is not taken away for it"
