"""Why not ready, why not scaled, how far the nodes are: what a ModelDeployment says of itself."""

from dataclasses import replace
from typing import Any

import pytest

from motet_api.objects import Condition
from motet_operator.conditions import find
from motet_operator.keys import Kind
from motet_operator.snapshot import PodState, Snapshot
from motet_operator.views import Prefetching, Rollout, Scaling
from tests.operator.factories import decided, holds, model, settled, state

SCALED = {"autoscaling": {"minReplicas": 1, "maxReplicas": 3, "targetQueueDepth": 4}}
PREFETCHING = {"startup": {"prefetch": {"image": "AllNodes"}}}
NO_GPU = "Unschedulable: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu."


def condition(snapshot: Snapshot, kind: str) -> Condition:
    status = decided(snapshot).model_status
    assert status is not None
    found = find(status.conditions, kind)
    assert found is not None
    return found


def waiting(problem: str, *names: str) -> tuple[PodState, ...]:
    return tuple(state(None, name=name, running=False, ready=False, problem=problem) for name in names)


def test_a_shared_problem_is_said_once() -> None:
    pods = (state(holds()), *waiting(NO_GPU, "pod-b", "pod-c"))
    ready = condition(settled(model(replicas=3), pods=pods, rollout=Rollout(True, 3, 1, 3, "")), "Ready")
    assert ready.message == f"1 of 3 pods ready; {NO_GPU} (2 pods)"


def test_a_quota_is_said_though_there_is_no_pod_to_ask() -> None:
    seen = Rollout(True, 0, 0, 0, 'pods "llama-1" is forbidden: exceeded quota: gpus')
    assert "exceeded quota: gpus" in condition(settled(model(), rollout=seen), "Ready").message


def test_how_far_a_roll_is() -> None:
    message = condition(settled(model(replicas=2), rollout=Rollout(True, 3, 2, 1, "")), "Ready").message
    assert message == "2 of 2 pods ready; 1 of the present spec"
    assert condition(settled(model(replicas=2), rollout=Rollout(True, 3, 2, 1, "")), "Reconciling").status == "True"


@pytest.mark.parametrize(
    ("stuck", "stalled"), [(True, ("True", "Progressing")), (False, ("False", "NotStalled"))], ids=["stuck", "not"]
)
def test_pods_that_do_not_come_in_time_need_somebody(stuck: bool, stalled: tuple[str, str]) -> None:
    pods = waiting("CrashLoopBackOff: back-off (last exit code 1)", "pod-a")
    found = condition(settled(model(), pods=pods, rollout=Rollout(True, 1, 0, 1, "", stuck)), "Stalled")
    assert (found.status, found.reason) == stalled
    assert ("CrashLoopBackOff" in found.message) is stuck


def test_pods_that_all_serve_need_nobody_whatever_happened_before() -> None:
    found = condition(settled(model(), rollout=Rollout(True, 1, 1, 1, "", stuck=True)), "Stalled")
    assert found.status == "False"


SCALINGS = {
    "at its maximum": (
        Scaling(True, "ok", 3, "the desired replica count is more than the maximum replica count"),
        (),
        ("True", ["it wants 3 pods (from 1 to 3)", "more than the maximum replica count"]),
    ),
    "a pod has no place": (
        Scaling(True, "ok", 2, ""),
        (state(holds()), *waiting(NO_GPU, "pod-b")),
        ("True", ["1 of 2 pods do not run yet", "Insufficient nvidia.com/gpu"]),
    ),
    "no metric": (Scaling(False, "unable to get metric"), (), ("False", ["unable to get metric"])),
    "not looked at": (Scaling(None, ""), (), ("Unknown", ["has not looked yet"])),
}


@pytest.mark.parametrize(("scaling", "pods", "expected"), SCALINGS.values(), ids=SCALINGS)
def test_why_not_scaled(scaling: Scaling, pods: tuple[PodState, ...], expected: tuple[str, list[str]]) -> None:
    found = condition(settled(model(**SCALED), pods=pods, scaling=scaling), "Autoscaling")
    assert found.status == expected[0]
    for words in expected[1]:
        assert words in found.message


def prefetching(seen: Prefetching | None) -> Snapshot:
    snapshot = settled(model(**PREFETCHING))
    view = replace(snapshot.children[Kind.PREFETCHER], prefetching=seen)
    return replace(snapshot, children={**snapshot.children, Kind.PREFETCHER: view})


PREFETCHES: dict[str, tuple[Snapshot, tuple[str, str]]] = {
    "nothing asked for": (settled(model()), ("False", "NotConfigured")),
    "not looked at": (prefetching(Prefetching(False, 0, 0)), ("Unknown", "Progressing")),
    "on its way": (prefetching(Prefetching(True, 3, 1)), ("False", "Progressing")),
    "there": (prefetching(Prefetching(True, 3, 3)), ("True", "Prefetched")),
    "no node": (prefetching(Prefetching(True, 0, 0)), ("True", "Prefetched")),
}


@pytest.mark.parametrize(("snapshot", "expected"), PREFETCHES.values(), ids=PREFETCHES)
def test_prefetch(snapshot: Snapshot, expected: tuple[str, str]) -> None:
    found = condition(snapshot, "PrefetchComplete")
    assert (found.status, found.reason) == expected


def test_nodes_are_counted_and_pods_summed_up() -> None:
    status = decided(prefetching(Prefetching(True, 3, 1))).model_status
    assert status is not None
    assert status.prefetch is not None
    assert (status.prefetch.ready, status.prefetch.nodes, status.summary.pods) == (1, 3, "1/1")


@pytest.mark.parametrize("spec", [{}, SCALED, PREFETCHING])
def test_a_condition_never_vanishes(spec: dict[str, Any]) -> None:
    status = decided(settled(model(**spec))).model_status
    assert status is not None
    assert len(status.conditions) == 8
