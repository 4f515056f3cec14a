"""Objects, pods and snapshots for the operator's tests."""

from datetime import UTC, datetime, timedelta
from typing import Any

from motet_api.identity import AdapterId, Digest
from motet_api.reasons import AdapterReason
from motet_api.wire import AdapterReport, AdaptersReport
from motet_operator.installation import Installation, RuntimeImage
from motet_operator.keys import RESOURCES, Kind, ModelKey
from motet_operator.models.base_source import base_source
from motet_operator.models.resources import digest, make_children
from motet_operator.passes.decide import Decision, decide
from motet_operator.snapshot import Applied, BaseAnswer, PodState, Snapshot
from motet_operator.views import Adapter, Child, ChildView, Declared, Model, Pod, Rollout, Scaling, read

Raw = dict[str, Any]

NAMESPACE = "speech"
MODEL = "llama"
MODEL_UID = "uid-llama"
KEY = ModelKey(NAMESPACE, MODEL)
NOW = datetime(2026, 11, 24, 10, 0, 0, tzinfo=UTC)
INSTALLATION = Installation(RuntimeImage("motet-runtime:1", "IfNotPresent"))
DIGEST = Digest("sha256:" + "a" * 64)
OTHER_DIGEST = Digest("sha256:" + "b" * 64)


def raw_model(status: Raw | None = None, generation: int = 1, name: str = MODEL, **spec: Any) -> Raw:
    """A ModelDeployment as the API server sends it."""
    body = {"model": {"source": {"uri": "pvc://models/llama"}}, **spec}
    return _object(Kind.MODEL_DEPLOYMENT, name, f"uid-{name}", generation, body, status)


def raw_adapter(
    name: str = "voice",
    versions: tuple[str, ...] = ("v1",),
    traffic: dict[str, int] | None = None,
    status: Raw | None = None,
    model: str = MODEL,
    digest: str | None = None,
) -> Raw:
    """A LoraAdapter as the API server sends it."""
    source = {"uri": "pvc://adapters/x"} | ({"digest": digest} if digest else {})
    spec: Raw = {
        "modelRef": {"name": model},
        "versions": [{"name": version, "source": source} for version in versions],
    }
    if traffic:
        spec["traffic"] = [{"version": version, "weight": weight} for version, weight in traffic.items()]
    return _object(Kind.LORA_ADAPTER, name, f"uid-{name}", 1, spec, status)


def raw_child(kind: Kind, name: str = MODEL, owner: str = MODEL_UID, status: Raw | None = None, **more: Any) -> Raw:
    """A child as the API server sends it."""
    raw = _object(kind, name, f"uid-{kind}", 1, {}, status)
    labels = {"motet.dev/model-deployment": MODEL, "app.kubernetes.io/managed-by": "motet-operator"}
    raw["metadata"] |= {"labels": labels, **more}
    if owner:
        raw["metadata"]["ownerReferences"] = [{"uid": owner, "controller": True}]
    return raw


def _object(kind: Kind, name: str, uid: str, generation: int, spec: Raw, status: Raw | None) -> Raw:
    raw: Raw = {
        "apiVersion": RESOURCES[kind].api_version,
        "kind": kind.value,
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": uid,
            "generation": generation,
            "resourceVersion": "10",
        },
        "spec": spec,
    }
    return raw | ({"status": status} if status is not None else {})


def model(**options: Any) -> Model:
    """A ModelDeployment."""
    view = read(Kind.MODEL_DEPLOYMENT, raw_model(**options))
    assert isinstance(view, Declared)
    return view


def adapter(*arguments: Any, **options: Any) -> Adapter:
    """A LoraAdapter."""
    view = read(Kind.LORA_ADAPTER, raw_adapter(*arguments, **options))
    assert isinstance(view, Declared)
    return view


def pod(
    name: str = "pod-a",
    ready: bool = True,
    running: bool = True,
    age_seconds: float = 600,
    problem: str = "",
    template: str = "",
) -> Pod:
    """A runtime pod."""
    started = NOW - timedelta(seconds=age_seconds) if running else None
    return Pod(name, f"10.0.0.{sum(name.encode()) % 250}", running, ready, started, problem, template)


def holds(*entries: tuple[str, AdapterReason] | str, known: bool = True, **more: Any) -> AdaptersReport:
    """What a pod says: ids, resident unless told otherwise. `more` goes into every entry."""
    reports = []
    for entry in entries:
        name, reason = (entry, AdapterReason.RESIDENT) if isinstance(entry, str) else entry
        facts = {"rank": 8, "digest": DIGEST, "size_bytes": 10} if reason is AdapterReason.RESIDENT else {}
        reports.append(
            AdapterReport(
                **{"id": AdapterId(name), "reason": reason, "uri": "pvc://adapters/x", "message": "", **facts, **more}
            )
        )
    return AdaptersReport(
        model=MODEL,
        base_loaded=True,
        desired_known=known,
        draining=False,
        max_batch_size=8,
        adapters=reports,
    )


def state(report: AdaptersReport | None, **options: Any) -> PodState:
    """A pod with what it says; None for one that is silent."""
    return PodState(pod(**options), report, "" if report else "timed out")


def settled(
    given: Model,
    adapters: tuple[Adapter, ...] = (),
    pods: tuple[PodState, ...] = (),
    rollout: Rollout | None = None,
    scaling: Scaling | None = None,
) -> Snapshot:
    """A snapshot in which every child is as it should be."""
    assert given.spec is not None
    children, applied = {}, {}
    base = base_source(given, BaseAnswer(), INSTALLATION.store).effective
    for kind, manifest in make_children(given.meta, given.spec, base, INSTALLATION).items():
        children[kind] = ChildView(
            Child(
                manifest["metadata"]["name"],
                f"uid-{kind}",
                given.meta.uid,
                ours=True,
                owned_fields="same",
                deleting=False,
            ),
            rollout=(rollout or Rollout(True, 1, 1, 1, "")) if kind is Kind.DEPLOYMENT else None,
            scaling=(scaling or Scaling(True, "")) if kind is Kind.AUTOSCALER else None,
        )
        applied[kind] = Applied(digest(manifest), "same")
    return Snapshot(KEY, given, adapters, children, pods, applied)


def decided(snapshot: Snapshot) -> Decision:
    """The decision about it, now."""
    return decide(snapshot, NOW, INSTALLATION)
