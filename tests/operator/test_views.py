"""What is read off objects as the API server sends them."""

from typing import Any, cast

import pytest

from motet_api.loraadapter import LoraAdapterStatus, ModelRef, TrafficTarget, VersionStatus
from motet_operator.keys import Kind
from motet_operator.views import ChildView, Declared, Pod, Prefetching, Scaling, read
from tests.operator.factories import DIGEST, MODEL_UID, raw_adapter, raw_child, raw_model
from tests.operator.test_reconciler import ready_pod

RUNNING = {"running": {"startedAt": "2026-11-24T10:00:00Z"}}


def pod_of(state: dict[str, Any], ip: str = "10.0.0.1", ready: str = "False", **status: Any) -> Pod:
    container = {"name": "runtime", "state": state, "lastState": status.pop("last", {})}
    raw = raw_child(
        Kind.POD,
        status={
            "podIP": ip,
            "containerStatuses": [{"name": "sidecar", "state": {}}, container],
            "conditions": [{"type": "Ready", "status": ready}],
            **status,
        },
    )
    view = read(Kind.POD, raw)
    assert isinstance(view, Pod)
    return view


def test_a_running_pod() -> None:
    view = pod_of(RUNNING, ready="True")
    assert (view.running, view.ready, view.ip, view.problem) == (True, True, "10.0.0.1", "")
    assert view.started is not None


@pytest.mark.parametrize(
    ("state", "options", "problem"),
    [
        ({"waiting": {"reason": "ContainerCreating"}}, {}, ""),
        ({"waiting": {"reason": "ImagePullBackOff", "message": "no image"}}, {}, "ImagePullBackOff: no image"),
        (
            {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
            {"last": {"terminated": {"exitCode": 1}}},
            "CrashLoopBackOff: back-off (last exit code 1)",
        ),
        (
            {},
            {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1"}]},
            "Unschedulable: 0/1",
        ),
        (
            {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
            {"last": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}},
            "CrashLoopBackOff: back-off (last exit code 137, OOMKilled)",
        ),
        ({"terminated": {"exitCode": 2, "reason": "Error"}}, {}, "Error: exit code 2"),
        ({"terminated": {"exitCode": 0, "reason": "Completed"}}, {}, ""),
        (
            {"waiting": {"reason": "PodInitializing"}},
            {"initContainerStatuses": [{"name": "fetch", "state": {"waiting": {"reason": "ErrImagePull"}}}]},
            "container fetch: ErrImagePull: ",
        ),
    ],
)
def test_why_a_pod_does_not_run(state: dict[str, Any], options: dict[str, Any], problem: str) -> None:
    view = pod_of(state, **options)
    assert (view.running, view.problem) == (False, problem)


def test_of_vllms_pod_the_agent_is_asked_and_both_may_have_problems() -> None:
    stopped = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
    containers = [{"name": "vllm", "state": stopped}, {"name": "agent", "state": RUNNING}]
    view = read(Kind.POD, raw_child(Kind.POD, status={"podIP": "10.0.0.1", "containerStatuses": containers}))
    assert isinstance(view, Pod)
    assert (view.running, view.problem) == (True, "container vllm: CrashLoopBackOff: back-off")


def test_a_pod_without_an_address_does_not_run_yet() -> None:
    assert not pod_of(RUNNING, ip="").running


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_finished_pod_is_none(phase: str) -> None:
    assert read(Kind.POD, raw_child(Kind.POD, status={"phase": phase})) is None


def test_ownership_of_a_child() -> None:
    fields = {"f:spec": {"f:replicas": {}}}
    entries = [
        {"manager": "motet-operator", "operation": "Apply", "fieldsV1": fields},
        {"manager": "kubectl", "fieldsV1": {}},
    ]
    view = read(Kind.SERVICE, raw_child(Kind.SERVICE, managedFields=entries))
    lost = read(Kind.SERVICE, raw_child(Kind.SERVICE, managedFields=[entries[0] | {"fieldsV1": {}}]))
    others = read(Kind.SERVICE, raw_child(Kind.SERVICE, managedFields=[entries[0]]))
    assert isinstance(view, ChildView)
    assert isinstance(lost, ChildView)
    assert isinstance(others, ChildView)
    assert (view.child.owner, view.child.ours) == (MODEL_UID, True)
    assert view.child.owned_fields != lost.child.owned_fields
    assert view.child.owned_fields == others.child.owned_fields, "what others own does not matter"


def test_an_owner_that_does_not_control_is_no_owner() -> None:
    raw = raw_child(Kind.SERVICE, ownerReferences=[{"uid": "other"}], owner="")
    view = read(Kind.SERVICE, raw)
    assert isinstance(view, ChildView)
    assert view.child.owner == ""


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([], Scaling(None, "")),
        ([{"type": "ScalingActive", "status": "True", "message": "ok"}], Scaling(True, "ok")),
        ([{"type": "ScalingActive", "status": "False", "message": "no metric"}], Scaling(False, "no metric")),
        ([{"type": "AbleToScale", "status": "False", "message": "no scale"}], Scaling(False, "no scale")),
    ],
)
def test_an_autoscaler(conditions: list[dict[str, str]], expected: Scaling) -> None:
    view = read(Kind.AUTOSCALER, raw_child(Kind.AUTOSCALER, status={"conditions": conditions}))
    assert isinstance(view, ChildView)
    assert view.scaling == expected


def test_a_deployment_whose_status_is_about_an_older_generation() -> None:
    old = read(Kind.DEPLOYMENT, raw_child(Kind.DEPLOYMENT, status={"observedGeneration": 0, "replicas": 2}))
    new = read(Kind.DEPLOYMENT, raw_child(Kind.DEPLOYMENT, status={"observedGeneration": 1, "replicas": 2}))
    assert isinstance(old, ChildView)
    assert isinstance(new, ChildView)
    assert old.rollout
    assert new.rollout
    assert (old.rollout.current, new.rollout.current, new.rollout.replicas) == (False, True, 2)


def test_a_deployment_that_has_given_up_says_first_why_no_pod_can_be_made() -> None:
    conditions = [
        {"type": "Progressing", "status": "False", "message": "timed out progressing"},
        {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: gpus"},
    ]
    view = read(Kind.DEPLOYMENT, raw_child(Kind.DEPLOYMENT, status={"conditions": conditions}))
    healthy = read(Kind.DEPLOYMENT, raw_child(Kind.DEPLOYMENT, status={}))
    assert isinstance(view, ChildView)
    assert isinstance(healthy, ChildView)
    assert view.rollout
    assert healthy.rollout
    assert (view.rollout.stuck, view.rollout.message) == (True, "exceeded quota: gpus; timed out progressing")
    assert (healthy.rollout.stuck, healthy.rollout.message) == (False, "")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, Prefetching(False, 0, 0)),
        (
            {"observedGeneration": 1, "desiredNumberScheduled": 3, "numberReady": 2, "updatedNumberScheduled": 3},
            Prefetching(True, 3, 2),
        ),
        (
            {"observedGeneration": 1, "desiredNumberScheduled": 3, "numberReady": 3, "updatedNumberScheduled": 1},
            Prefetching(True, 3, 1),
        ),
        (
            {"observedGeneration": 0, "desiredNumberScheduled": 3, "numberReady": 3, "updatedNumberScheduled": 3},
            Prefetching(False, 3, 0),
        ),
    ],
)
def test_a_prefetcher(status: dict[str, int], expected: Prefetching) -> None:
    view = read(Kind.PREFETCHER, raw_child(Kind.PREFETCHER, status=status))
    assert isinstance(view, ChildView)
    assert view.prefetching == expected


def test_what_an_autoscaler_wants_and_may_not_have() -> None:
    conditions = [
        {"type": "ScalingActive", "status": "True", "message": "ok"},
        {"type": "ScalingLimited", "status": "True", "message": "more than the maximum"},
    ]
    status = {"conditions": conditions, "desiredReplicas": 3}
    view = read(Kind.AUTOSCALER, raw_child(Kind.AUTOSCALER, status=status))
    assert isinstance(view, ChildView)
    assert view.scaling == Scaling(True, "ok", 3, "more than the maximum")


def test_a_spec_that_cannot_be_understood_is_named_and_status_is_kept() -> None:
    raw = raw_model(replicas="many", status={"replicas": 3})
    view = read(Kind.MODEL_DEPLOYMENT, raw)
    assert isinstance(view, Declared)
    assert view.spec is None
    assert view.error.startswith("spec.replicas: ")
    assert view.status is not None


def test_of_a_status_of_another_time_what_is_understood_counts() -> None:
    version = {"name": "v1", "digest": DIGEST, "readyOn": "all", "conditions": [{"type": "New", "status": "Maybe"}]}
    status = {"versions": [version, "v2", {"digest": DIGEST}], "traffic": [{"version": "v1", "weight": 1}]}
    view = read(Kind.LORA_ADAPTER, raw_adapter(status=status))
    assert isinstance(view, Declared)
    assert view.status == LoraAdapterStatus(
        versions=[VersionStatus(name="v1", digest=DIGEST)], traffic=[TrafficTarget(version="v1", weight=1)]
    )


def test_a_status_that_is_none_is_as_good_as_none() -> None:
    view = read(Kind.LORA_ADAPTER, raw_adapter(status=cast(Any, "all")))
    assert isinstance(view, Declared)
    assert view.status is None
    assert view.spec is not None


def test_a_spec_that_is_not_understood_still_says_where_it_is_at_home() -> None:
    raw = raw_adapter()
    raw["spec"]["residency"] = "Sometimes"
    view = read(Kind.LORA_ADAPTER, raw)
    assert isinstance(view, Declared)
    assert (view.spec, view.reference) == (None, ModelRef(name="llama"))
    assert view.error.startswith("spec.residency: ")
    raw["spec"]["modelRef"] = "llama"
    view = read(Kind.LORA_ADAPTER, raw)
    assert isinstance(view, Declared)
    assert view.reference is None


def test_the_base_that_a_pod_fetches() -> None:
    raw = ready_pod()
    assert getattr(read(Kind.POD, raw), "base", None) == ""
    fetching = {"name": "fetch", "args": ["fetch", "--store=http://s", f"--artifact={DIGEST}", "--to=/x"]}
    raw["spec"] = {"initContainers": [{"name": "other", "args": ["--artifact=x"]}, fetching]}
    assert getattr(read(Kind.POD, raw), "base", None) == DIGEST
