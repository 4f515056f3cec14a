"""What kubectl wait, Flux and Argo CD make of the objects: kstatus' published rules, and the Lua for Argo CD by Lua."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from lupa.lua51 import LuaRuntime

from motet_api import crd
from motet_api.loraadapter import LoraAdapterStatus
from motet_api.reasons import AdapterReason, ConditionType, Reason
from motet_operator.conditions import Stamp, Verdict, kstatus, no, unknown, yes
from motet_operator.snapshot import Snapshot
from motet_operator.views import Rollout
from tests.operator.factories import KEY, NOW, adapter, decided, holds, model, raw_adapter, raw_model, settled, state

GITOPS = Path(__file__).parents[2] / "docs/gitops"
Raw = dict[str, Any]


def flux(raw: Raw) -> str:
    """kstatus of a custom resource: generic properties first, then its Ready condition (cli-utils, pkg/kstatus/status).

    Flux evaluates the same where a Kustomization has no healthCheckExprs.
    """
    metadata, status = raw["metadata"], raw.get("status") or {}
    if "deletionTimestamp" in metadata:
        return "Terminating"
    if "observedGeneration" in status and status["observedGeneration"] != metadata["generation"]:
        return "InProgress"
    said = {entry["type"]: entry["status"] for entry in status.get("conditions") or []}
    for kind, answer in (("Reconciling", "InProgress"), ("Stalled", "Failed")):
        if said.get(kind) == "True":
            return answer
    # An object without any condition counts as current: it is for the controller to speak first.
    return "Current" if said.get("Ready", "True") == "True" else "InProgress"


def argo(raw: Raw) -> str:
    """Argo CD runs the script with the object as `obj`."""
    scripts = yaml.safe_load((GITOPS / "argocd-health.yaml").read_text())["data"]
    script = scripts[f"resource.customizations.health.motet.dev_{raw['kind']}"]
    lua = LuaRuntime()
    health = lua.execute(f"local obj = ...\n{script}", lua.table_from(raw, recursive=True))
    assert isinstance(health["message"], str)
    return str(health["status"])


def applied(raw: Raw, **metadata: Any) -> Raw:
    return raw | {"metadata": raw["metadata"] | metadata}


def the_model(snapshot: Snapshot, **metadata: Any) -> Raw:
    """The ModelDeployment with the status that the operator writes for this snapshot."""
    status = decided(snapshot).model_status
    assert status is not None
    return applied(raw_model(status=status.to_wire()), **metadata)


def the_adapter(ready: Verdict, stuck: bool = False, rolled_out: Verdict | None = None, **metadata: Any) -> Raw:
    """A LoraAdapter of which this is said."""
    verdicts = {ConditionType.READY: ready, **kstatus(ready, stuck)}
    if rolled_out is not None:
        verdicts[ConditionType.ROLLED_OUT] = rolled_out
    stamp = Stamp(1, NOW)
    conditions = [stamp.condition((), kind, verdict) for kind, verdict in verdicts.items()]
    status = LoraAdapterStatus(observed_generation=1, conditions=conditions)
    return applied(raw_adapter(status=status.to_wire()), **metadata)


def told(snapshot: Snapshot) -> Raw:
    """The LoraAdapter with the status that the operator writes for this snapshot."""
    (status,) = (decided(snapshot).adapter_statuses or {}).values()
    return raw_adapter(status=status.to_wire())


STEADY = settled(model())
STARTING = settled(model(), rollout=Rollout(True, 1, 0, 1, ""))
STUCK = settled(model(), rollout=Rollout(True, 1, 0, 1, "ReplicaSet has timed out progressing.", stuck=True))
NEEDS_A_STORE = Snapshot(KEY, model(model={"source": {"uri": "hf://org/name"}}))
WRONG = state(holds(("voice@v1", AdapterReason.DIGEST_MISMATCH)))
READY = yes(Reason.READY, "2 of 2 versions")
NEW = crd.model_deployment_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["default"]
GONE = {"deletionTimestamp": "2026-11-24T10:00:00Z"}

OBJECTS = {
    "a model, just applied": (raw_model(status=NEW), "InProgress", "Progressing"),
    "a model, its pods start": (the_model(STARTING), "InProgress", "Progressing"),
    "a model, nothing there yet": (the_model(Snapshot(KEY, model())), "InProgress", "Progressing"),
    "a model, ready": (the_model(STEADY), "Current", "Healthy"),
    "a model, changed since": (the_model(STEADY, generation=2), "InProgress", "Progressing"),
    "a model, its pods do not come": (the_model(STUCK), "Failed", "Degraded"),
    "a model, its base cannot be had": (the_model(NEEDS_A_STORE), "Failed", "Degraded"),
    "a model, stuck, and changed since": (the_model(STUCK, generation=2), "InProgress", "Progressing"),
    "a model, not understood": (
        the_model(replace(STEADY, model=model(replicas="many"))),
        "Failed",
        "Degraded",
    ),
    "a model, being deleted": (the_model(STEADY, **GONE), "Terminating", "Progressing"),
    "an adapter, just applied": (raw_adapter(status=NEW), "InProgress", "Progressing"),
    "an adapter, no pod to ask": (told(settled(model(), (adapter(),))), "InProgress", "Progressing"),
    "an adapter, its model is missing": (told(Snapshot(KEY, None, (adapter(),))), "InProgress", "Progressing"),
    "an adapter, its digest is wrong": (told(settled(model(), (adapter(),), (WRONG,))), "Failed", "Degraded"),
    "an adapter, loading": (the_adapter(no(AdapterReason.LOADING, "on pod-a")), "InProgress", "Progressing"),
    "an adapter, nobody can say": (the_adapter(unknown(Reason.NO_PODS, "no pod")), "InProgress", "Progressing"),
    "an adapter, ready": (the_adapter(READY), "Current", "Healthy"),
    "an adapter, changed since": (the_adapter(READY, generation=2), "InProgress", "Progressing"),
    "an adapter, refused for good": (
        the_adapter(no(AdapterReason.RANK_TOO_LARGE, "rank 128"), stuck=True),
        "Failed",
        "Degraded",
    ),
    "an adapter, its rollout is paused": (
        the_adapter(no(Reason.PAUSED, "step 1"), rolled_out=no(Reason.PAUSED, "step 1")),
        "InProgress",
        "Suspended",
    ),
    "an adapter, being deleted": (the_adapter(READY, **GONE), "Terminating", "Progressing"),
}


@pytest.mark.parametrize(("raw", "in_flux", "in_argo"), OBJECTS.values(), ids=OBJECTS)
def test_health(raw: Raw, in_flux: str, in_argo: str) -> None:
    assert (flux(raw), argo(raw)) == (in_flux, in_argo)


@pytest.mark.parametrize("raw", [entry[0] for entry in OBJECTS.values()], ids=OBJECTS)
def test_never_reconciling_and_stalled_at_once(raw: Raw) -> None:
    said = {entry["type"]: entry["status"] for entry in raw.get("status", {}).get("conditions", [])}
    assert not said.get("Reconciling") == said.get("Stalled") == "True"
    if said:
        assert {"Ready", "Reconciling", "Stalled"} <= set(said)


def test_flux_waits_and_needs_no_expressions() -> None:
    spec = yaml.safe_load((GITOPS / "flux-health.yaml").read_text())["spec"]
    assert spec["wait"] is True
    assert "healthCheckExprs" not in spec
