"""Tables of decide: what is observed, what is done about it, and what is said."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from motet_api.objects import Condition
from motet_api.reasons import AdapterReason
from motet_operator import looks
from motet_operator.conditions import find
from motet_operator.keys import Kind
from motet_operator.passes.decide import (
    Action,
    Apply,
    Delete,
    Tell,
    decide,
)
from motet_operator.snapshot import Snapshot
from motet_operator.views import Rollout, Scaling
from tests.operator.factories import (
    DIGEST,
    INSTALLATION,
    KEY,
    NAMESPACE,
    NOW,
    OTHER_DIGEST,
    adapter,
    decided,
    holds,
    model,
    settled,
    state,
)

VOICE = adapter()
TWO = adapter(versions=("v1", "v2"), traffic={"v1": 90, "v2": 10})
SCALED = {"autoscaling": {"maxReplicas": 3, "targetQueueDepth": 4}}
FAILED = ("voice@v1", AdapterReason.DIGEST_MISMATCH)
LOADING = ("voice@v1", AdapterReason.LOADING)


def verb(action: Action) -> str:
    match action:
        case Apply(kind=kind):
            return f"apply {kind}"
        case Delete(kind=kind):
            return f"delete {kind}"
        case Tell(pod=name):
            return f"tell {name}"


def changed(snapshot: Snapshot, kind: Kind, **child: Any) -> Snapshot:
    view = snapshot.children[kind]
    return replace(snapshot, children={**snapshot.children, kind: replace(view, child=replace(view.child, **child))})


def without(snapshot: Snapshot, kind: Kind) -> Snapshot:
    return replace(snapshot, children={key: view for key, view in snapshot.children.items() if key is not kind})


STEADY = settled(model(**SCALED), (VOICE,), (state(holds("voice@v1")),))
MADE = ["apply ServiceAccount", "apply Service", "apply PodDisruptionBudget", "apply Deployment"]
UNSCALED = replace(STEADY, model=model())

ACTIONS = {
    "nothing to do": (STEADY, []),
    "nothing there yet": (
        Snapshot(KEY, model(**SCALED)),
        [*MADE, "apply HorizontalPodAutoscaler"],
    ),
    "nothing there yet, no autoscaling": (
        Snapshot(KEY, model()),
        MADE,
    ),
    "the Deployment was deleted by hand": (without(STEADY, Kind.DEPLOYMENT), ["apply Deployment"]),
    "the Service was deleted by hand": (without(STEADY, Kind.SERVICE), ["apply Service"]),
    "the ServiceAccount was deleted by hand": (without(STEADY, Kind.SERVICE_ACCOUNT), ["apply ServiceAccount"]),
    "the autoscaler was deleted by hand": (
        without(STEADY, Kind.AUTOSCALER),
        ["apply HorizontalPodAutoscaler"],
    ),
    "a child is still on its way out": (changed(STEADY, Kind.DEPLOYMENT, deleting=True), []),
    "somebody changed a field of ours": (
        changed(STEADY, Kind.DEPLOYMENT, owned_fields="fewer"),
        ["apply Deployment"],
    ),
    "the operator has restarted": (
        replace(STEADY, applied={}),
        [*MADE, "apply HorizontalPodAutoscaler"],
    ),
    "spec has changed": (replace(STEADY, model=model(**SCALED, replicas=2)), ["apply Deployment"]),
    "autoscaling was removed": (UNSCALED, ["delete HorizontalPodAutoscaler"]),
    "autoscaling was removed, the autoscaler is somebody else's": (
        changed(UNSCALED, Kind.AUTOSCALER, owner="somebody"),
        [],
    ),
    "the name is taken by an object of somebody else": (
        replace(changed(STEADY, Kind.SERVICE, owner="", ours=False), applied={}),
        [],
    ),
    "a child was orphaned": (
        replace(changed(STEADY, Kind.SERVICE, owner="", owned_fields="fewer")),
        ["apply Service"],
    ),
    "the ModelDeployment is on its way out": (
        replace(STEADY, model=replace(model(), meta=model().meta.model_copy(update={"deletion_timestamp": NOW}))),
        [],
    ),
    "there is no ModelDeployment": (Snapshot(KEY, None, (VOICE,), pods=(state(holds()),)), []),
    "a pod has not been told": (replace(STEADY, pods=(state(holds(known=False)),)), ["tell pod-a"]),
    "a pod has not been told, though there is nothing to tell": (
        replace(STEADY, adapters=(), pods=(state(holds(known=False)),)),
        ["tell pod-a"],
    ),
    "a pod lacks a version": (replace(STEADY, pods=(state(holds()),)), ["tell pod-a"]),
    "a pod has one too many": (replace(STEADY, pods=(state(holds("voice@v1", "old@v1")),)), ["tell pod-a"]),
    "a pod is about to unload the one too many": (
        replace(STEADY, pods=(state(holds("voice@v1", ("old@v1", AdapterReason.DRAINING))),)),
        [],
    ),
    "a pod has it from another source": (
        replace(STEADY, pods=(state(holds("voice@v1", uri="pvc://adapters/y")),)),
        ["tell pod-a"],
    ),
    "a pod was told another digest": (
        replace(STEADY, adapters=(adapter(digest=OTHER_DIGEST),), pods=(state(holds("voice@v1")),)),
        ["tell pod-a"],
    ),
    "a pod failed with another digest than the one wanted now": (
        replace(
            STEADY,
            adapters=(adapter(digest=OTHER_DIGEST),),
            pods=(state(holds(("voice@v1", AdapterReason.DIGEST_MISMATCH), desired_digest=DIGEST)),),
        ),
        ["tell pod-a"],
    ),
    "a pod failed with the digest wanted": (
        replace(
            STEADY,
            adapters=(adapter(digest=OTHER_DIGEST),),
            pods=(state(holds(("voice@v1", AdapterReason.DIGEST_MISMATCH), desired_digest=OTHER_DIGEST)),),
        ),
        [],
    ),
    "a version failed for good": (replace(STEADY, pods=(state(holds(FAILED)),)), []),
    "a pod is loading": (replace(STEADY, pods=(state(holds(LOADING)),)), []),
    "a pod is silent": (replace(STEADY, pods=(state(None),)), []),
    "only one of two pods needs to be told": (
        replace(STEADY, pods=(state(holds("voice@v1")), state(holds(), name="pod-b", ready=False))),
        ["tell pod-b"],
    ),
    "an adapter is on its way out": (
        replace(
            STEADY,
            adapters=(replace(VOICE, meta=VOICE.meta.model_copy(update={"deletion_timestamp": NOW})),),
        ),
        ["tell pod-a"],
    ),
    "spec cannot be understood": (
        replace(STEADY, model=model(replicas="many")),
        [],
    ),
}


@pytest.mark.parametrize(("snapshot", "expected"), ACTIONS.values(), ids=ACTIONS)
def test_actions(snapshot: Snapshot, expected: list[str]) -> None:
    decision = decided(snapshot)
    assert [verb(action) for action in decision.actions] == expected
    assert all(action.why for action in decision.actions)


def test_a_pod_is_told_the_whole_set() -> None:
    other = adapter(name="topic", digest=OTHER_DIGEST)
    (tell,) = decided(replace(STEADY, adapters=(TWO, other), pods=(state(holds()),))).actions
    assert isinstance(tell, Tell)
    assert [(entry.id, entry.uri, entry.digest) for entry in tell.document.adapters] == [
        ("voice@v1", "pvc://adapters/x", None),
        ("voice@v2", "pvc://adapters/x", None),
        ("topic@v1", "pvc://adapters/x", OTHER_DIGEST),
    ]


def recorded(snapshot: Snapshot, *more: tuple[str, AdapterReason]) -> Snapshot:
    """The snapshot once the digest is in status, and the pods were told of it."""
    status = (decided(snapshot).adapter_statuses or {})[NAMESPACE, "voice"]
    pods = (state(holds("voice@v1", *more, desired_digest=DIGEST)),)
    return replace(snapshot, adapters=(replace(VOICE, status=status),), pods=pods)


LOOKS = {
    "steady": (recorded(STEADY), looks.STEADY),
    "a digest was found: pods are told of it at once": (STEADY, 0.0),
    "no pod": (replace(STEADY, pods=()), looks.STEADY),
    "a pod that does not run: an event will tell": (
        replace(STEADY, pods=(state(None, running=False, ready=False),)),
        looks.STEADY,
    ),
    "failed for good": (replace(STEADY, pods=(state(holds(FAILED)),)), looks.STEADY),
    "failed, tried again by the pod": (
        replace(STEADY, pods=(state(holds(("voice@v1", AdapterReason.FETCH_FAILED))),)),
        looks.LATER,
    ),
    "loading": (replace(STEADY, pods=(state(holds(LOADING)),)), looks.SOON),
    "just told": (replace(STEADY, pods=(state(holds()),)), looks.SOON),
    "a young pod is silent": (replace(STEADY, pods=(state(None, age_seconds=5),)), looks.SOON),
    "an old pod is silent": (replace(STEADY, pods=(state(None, age_seconds=600),)), looks.LATER),
    "unloading": (
        recorded(STEADY, ("old@v1", AdapterReason.DRAINING)),
        looks.SOON,
    ),
}


@pytest.mark.parametrize(("snapshot", "seconds"), LOOKS.values(), ids=LOOKS)
def test_when_to_look_again(snapshot: Snapshot, seconds: float) -> None:
    assert decided(snapshot).look_again == seconds


def test_without_the_model_only_an_event_changes_anything() -> None:
    assert decided(Snapshot(KEY, None, (VOICE,))).look_again is None


def said(conditions: list[Condition], kind: str) -> tuple[str, str]:
    found = find(conditions, kind)
    assert found is not None
    return found.status, found.reason


PROGRESS = Rollout(True, 2, 1, 2, "")
MODEL_CONDITIONS = {
    "all well": (
        STEADY,
        {
            "Ready": ("True", "Ready"),
            "Available": ("True", "PodsAvailable"),
            "AdaptersResident": ("True", "AdaptersResident"),
            "Autoscaling": ("True", "ScalingActive"),
        },
    ),
    "nothing there yet": (
        Snapshot(KEY, model()),
        {
            "Ready": ("False", "Progressing"),
            "Available": ("False", "PodsUnavailable"),
            "AdaptersResident": ("True", "AdaptersResident"),
            "Autoscaling": ("False", "NotConfigured"),
        },
    ),
    "a second pod is starting": (
        settled(model(replicas=2), (VOICE,), (state(holds("voice@v1")),), PROGRESS),
        {"Ready": ("False", "Progressing"), "Available": ("True", "PodsAvailable")},
    ),
    "a rollout has just begun": (
        settled(model(), rollout=Rollout(False, 1, 1, 1, "")),
        {"Ready": ("False", "Progressing"), "Available": ("True", "PodsAvailable")},
    ),
    "an old pod is still there": (
        settled(model(), rollout=Rollout(True, 2, 2, 1, "")),
        {"Ready": ("False", "Progressing")},
    ),
    "scaled to nothing": (
        settled(model(replicas=0), rollout=Rollout(True, 0, 0, 0, "")),
        {"Ready": ("True", "Ready"), "Available": ("False", "PodsUnavailable")},
    ),
    "a version failed": (
        replace(STEADY, pods=(state(holds(FAILED)),)),
        {"Ready": ("True", "Ready"), "AdaptersResident": ("False", "AdaptersFailed")},
    ),
    "a version loads": (
        replace(STEADY, pods=(state(holds(LOADING)),)),
        {"AdaptersResident": ("False", "Progressing")},
    ),
    "a pod is silent": (
        replace(STEADY, pods=(state(None),)),
        {"AdaptersResident": ("Unknown", "PodUnreachable")},
    ),
    "no pod": (replace(STEADY, pods=()), {"AdaptersResident": ("Unknown", "NoPods")}),
    "the metric cannot be read": (
        settled(model(**SCALED), scaling=Scaling(False, "no metric")),
        {"Autoscaling": ("False", "MetricUnavailable"), "Ready": ("True", "Ready")},
    ),
    "the autoscaler has not looked": (
        settled(model(**SCALED), scaling=Scaling(None, "")),
        {"Autoscaling": ("Unknown", "Progressing")},
    ),
    "the name is taken": (
        changed(STEADY, Kind.SERVICE, owner="", ours=False),
        {"Ready": ("False", "NameTaken")},
    ),
    "spec cannot be understood": (replace(STEADY, model=model(replicas="many")), {"Ready": ("False", "InvalidSpec")}),
}


@pytest.mark.parametrize(("snapshot", "expected"), MODEL_CONDITIONS.values(), ids=MODEL_CONDITIONS)
def test_conditions_of_the_model(snapshot: Snapshot, expected: dict[str, tuple[str, str]]) -> None:
    status = decided(snapshot).model_status
    assert status is not None
    assert {kind: said(status.conditions, kind) for kind in expected} == expected
    assert len(status.conditions) == 8, "a condition never vanishes"
    assert all(entry.observed_generation == 1 for entry in status.conditions)


def test_counts_and_selector() -> None:
    pods = (state(holds("voice@v1", ("voice@v2", AdapterReason.DIGEST_MISMATCH))),)
    status = decided(settled(model(), (TWO,), pods)).model_status
    assert status is not None
    assert (status.replicas, status.ready_replicas) == (1, 1)
    assert status.selector == "motet.dev/model-deployment=llama"
    counts = status.adapters
    assert (counts.desired, counts.resident, counts.failed, counts.summary) == (2, 1, 1, "1/2")


def test_what_keeps_pods_from_running_is_said() -> None:
    pods = (state(None, running=False, ready=False, problem="ImagePullBackOff: no such image"),)
    status = decided(settled(model(), pods=pods, rollout=Rollout(True, 1, 0, 1, ""))).model_status
    assert status is not None
    for kind in ("Ready", "Available"):
        found = find(status.conditions, kind)
        assert found is not None
        assert "ImagePullBackOff: no such image" in found.message


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (("voice@v1", AdapterReason.SOURCE_NOT_FOUND), "pod-a is not ready without voice@v1 (SourceNotFound)"),
        (("voice@v1", AdapterReason.DIGEST_MISMATCH), ""),
    ],
)
def test_a_pod_that_waits_for_an_adapter_says_so(entry: tuple[str, AdapterReason], message: str) -> None:
    rollout = Rollout(True, 1, 0, 1, "")
    status = decided(settled(model(), (VOICE,), (state(holds(entry), ready=False),), rollout)).model_status
    assert status is not None
    found = find(status.conditions, "Ready")
    assert found is not None
    assert found.message == "; ".join(filter(None, ["0 of 1 pods ready", message]))


def test_what_the_api_server_refuses_is_said() -> None:
    status = decide(STEADY, NOW, INSTALLATION, {Kind.DEPLOYMENT: "spec.template: no"}).model_status
    assert status is not None
    found = find(status.conditions, "Ready")
    assert found is not None
    assert (found.reason, "Deployment" in found.message, "spec.template: no" in found.message) == (
        "InvalidSpec",
        True,
        True,
    )


def test_a_steady_decision_repeats_itself() -> None:
    first = decided(recorded(STEADY))
    assert STEADY.model is not None
    assert first.adapter_statuses is not None
    again = replace(
        recorded(STEADY),
        model=replace(STEADY.model, status=first.model_status),
        adapters=(replace(VOICE, status=first.adapter_statuses[NAMESPACE, "voice"]),),
    )
    later = decide(again, NOW + timedelta(hours=1), INSTALLATION)
    assert later == replace(first)


def test_a_pod_that_starts_is_told_though_others_are_ready() -> None:
    pods = (state(holds("voice@v1")), state(holds(known=False), name="pod-b", ready=False, age_seconds=1))
    decision = decided(settled(model(replicas=2), (VOICE,), pods, PROGRESS))
    assert [verb(action) for action in decision.actions] == ["tell pod-b"]
    assert decision.adapter_statuses is not None
    assert said(decision.adapter_statuses[NAMESPACE, "voice"].conditions, "Ready") == ("True", "Ready")


def test_memory_of_an_autoscaler_that_was_removed_does_no_harm() -> None:
    snapshot = replace(UNSCALED, children={k: v for k, v in UNSCALED.children.items() if k is not Kind.AUTOSCALER})
    assert Kind.AUTOSCALER in snapshot.applied
    assert decided(snapshot).actions == ()
