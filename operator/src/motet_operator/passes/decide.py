"""What to do and what to say about one ModelDeployment: a pure function of what was observed and of the time.

Invariant: the same snapshot gives the same decision. Once the cluster is as it should be, a decision has no actions,
and its statuses say what those in the snapshot say already.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from motet_api.loraadapter import LoraAdapterStatus
from motet_api.modeldeployment import ModelDeploymentStatus
from motet_api.reasons import AdapterReason, Reason
from motet_api.wire import DesiredAdapter, DesiredAdapters
from motet_operator import looks
from motet_operator.adapters.assignment import assign
from motet_operator.adapters.home import at_home, statuses, waits
from motet_operator.adapters.residency import in_wanted_state, standings
from motet_operator.conditions import Stamp, Verdict, no
from motet_operator.installation import Installation
from motet_operator.keys import CHILDREN, Kind, ObjectName
from motet_operator.models.base_source import base_source
from motet_operator.models.model_status import ModelFacts, model_status
from motet_operator.models.resources import Manifest, digest, make_children, wanted_children
from motet_operator.models.rolling import rolled
from motet_operator.snapshot import PodState, Snapshot
from motet_operator.views import Child, Model

_YOUNG: Final = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class Apply:
    """Make a child what the manifest says."""

    kind: Kind
    manifest: Manifest
    why: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a child, if it is still the one with this uid."""

    kind: Kind
    name: str
    uid: str
    why: str


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell a pod the whole set of adapters that it must hold."""

    pod: str
    ip: str
    document: DesiredAdapters
    why: str


Action = Apply | Delete | Tell
Documents = Mapping[str, Sequence[DesiredAdapter]]
"""What each pod must hold, by the pod's name."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, what to say (of LoraAdapters by name), and when to look again: None if only an event changes it.

    `settled` is said where nothing is to be done and nothing waited for: while the snapshot stays so does the decision,
    whatever time it is.
    """

    actions: tuple[Action, ...] = ()
    model_status: ModelDeploymentStatus | None = None
    adapter_statuses: Mapping[ObjectName, LoraAdapterStatus] | None = None
    look_again: float | None = None
    settled: bool = False


def decide(
    snapshot: Snapshot, now: datetime, installation: Installation, refused: Mapping[Kind, str] | None = None
) -> Decision:
    """The decision. `refused` holds what the API server said to children that it would not take, in this very pass."""
    model, sites = snapshot.model, snapshot.sites
    assignments = {key: assign(site, snapshot.tenants) for key, site in sites.items()}
    found = {key: standings(assignments[key], site.pods) for key, site in sites.items()}
    told = statuses(snapshot, found, now)
    waiting = [wait for adapter in at_home(snapshot) for wait in waits(adapter, told[adapter.name], snapshot.key)]
    said = {name: entry.status for name, entry in told.items()}
    if model is None or model.deleting:
        # Its children go with it by garbage collection; what is left is to say so on its adapters.
        return Decision(adapter_statuses=said, look_again=min(waiting, default=None))
    placed = assignments[snapshot.key].documents(state.pod.name for state in snapshot.pods)
    documents = rolled(snapshot.pods, placed)
    source = base_source(model, snapshot.base, installation.store)
    wanted = wanted_children(model.spec, installation) if model.spec is not None else frozenset(CHILDREN)
    made = make_children(model.meta, model.spec, source.effective, installation) if model.spec is not None else {}
    taken = [
        view.child
        for kind in CHILDREN
        if kind in wanted and (view := snapshot.children.get(kind)) and _foreign(view.child, model)
    ]
    children = () if taken else tuple(_child_actions(snapshot, model, made, wanted))
    standing = {
        str(name): stands
        for name, stands in found[snapshot.key].items()
        # Whom the model does not take is no matter of the model's.
        if stands.verdict.reason is not Reason.NOT_ALLOWED
    }
    actions = (*children, *_tellings(snapshot.pods, documents, installation.store))
    waiting += [*_waits(snapshot.pods, documents, now), *([looks.SOON] if source.pending else [])]
    return Decision(
        actions=actions,
        model_status=model_status(
            model,
            ModelFacts(
                {} if taken else snapshot.children, snapshot.pods, standing, source, _refusal(taken, refused or {})
            ),
            Stamp(model.meta.generation, now),
        ),
        adapter_statuses=said,
        look_again=min([looks.STEADY, *waiting]),
        settled=not actions and not waiting,
    )


def _child_actions(
    snapshot: Snapshot, model: Model, made: Mapping[Kind, Manifest], wanted: Collection[Kind]
) -> Iterator[Action]:
    for kind, manifest in made.items():
        why = _why_apply(snapshot, kind, manifest)
        if why:
            yield Apply(kind, manifest, why)
    for kind in CHILDREN:
        view = snapshot.children.get(kind)
        if kind not in wanted and view is not None and view.child.owner == model.meta.uid and not view.child.deleting:
            yield Delete(kind, view.child.name, view.child.uid, "spec does not ask for it any more")


def _why_apply(snapshot: Snapshot, kind: Kind, manifest: Manifest) -> str:
    """Why a child must be applied; empty if it need not be.

    A live object cannot be compared with the manifest field by field: the API server fills in defaults and writes
    quantities its own way. What can be compared is what we sent last, and which fields are ours since: a field that
    somebody else has changed is no longer ours.
    """
    view, applied = snapshot.children.get(kind), snapshot.applied.get(kind)
    if view is None:
        return "it does not exist"
    if view.child.deleting:
        return ""
    if applied is None:
        return "it may differ: this process has not applied it yet"
    if applied.manifest != digest(manifest):
        return "what it should be has changed"
    if applied.owned_fields != view.child.owned_fields:
        return "somebody else has changed a field of it"
    return ""


def _foreign(child: Child, model: Model) -> bool:
    """Whether a child of that name belongs to somebody else: it must not be taken over, let alone go with the model."""
    return child.owner != model.meta.uid and not (child.ours and not child.owner)


def _refusal(taken: Sequence[Child], refused: Mapping[Kind, str]) -> Verdict | None:
    if taken:
        message = (
            f"an object named {taken[0].name!r} that is not this ModelDeployment's is in the way (owner "
            f"{taken[0].owner or 'none'}): delete it, or name the ModelDeployment differently"
        )
        return no(Reason.NAME_TAKEN, message)
    for kind, message in refused.items():
        return no(Reason.INVALID_SPEC, f"the API server refuses the {kind}: {message}")
    return None


def _tellings(pods: Sequence[PodState], documents: Documents, store: str) -> Iterator[Tell]:
    for state in pods:
        document = documents.get(state.pod.name)
        if document is None or state.report is None or in_wanted_state(state, document):
            continue
        body = DesiredAdapters(adapters=list(document), store=store)
        why = "what it holds differs" if state.report.desired_known else "it has not been told since it started"
        yield Tell(state.pod.name, state.pod.ip, body, why)


def _waits(pods: Sequence[PodState], documents: Documents, now: datetime) -> Iterator[float]:
    """After how long each pod that runs should be asked again, where that is sooner than usual."""
    for state in pods:
        if not state.pod.running:
            continue
        if state.report is None:
            young = state.pod.started is None or now - state.pod.started < _YOUNG
            yield looks.SOON if young else looks.LATER
        elif (document := documents.get(state.pod.name)) is None:
            yield looks.LATER
        elif not in_wanted_state(state, document):
            yield looks.SOON
        else:
            reasons = {entry.reason for entry in state.report.adapters}
            if reasons & {AdapterReason.LOADING, AdapterReason.DRAINING}:
                yield looks.SOON
            elif any(reason.transient for reason in reasons):
                yield looks.LATER
