"""What a pod of a new template must not fail at, if it is to take the place of one that serves. Pure.

A pod is ready without an adapter that has failed for good, since one bad upload must not keep every new pod away. While
the Deployment rolls that would be wrong: if pods of the template before serve the adapter, it is the new image or flag
that cannot. So a pod that has not been ready yet is told which adapters are *proven* by ready pods of another template,
and waits for each of them; one that has no room for a proven adapter that it must hold is told nothing, and is not
ready either. The roll then stops, with the old pods serving, and the statuses say at what.
"""

from collections.abc import Mapping, Sequence

from motet_api.identity import AdapterId
from motet_api.loraadapter import Residency
from motet_api.reasons import AdapterReason
from motet_api.wire import DesiredAdapter
from motet_operator.snapshot import PodState

Document = Sequence[DesiredAdapter]


def rolled(pods: Sequence[PodState], placed: Mapping[str, Document]) -> dict[str, Document]:
    """The documents of the pods that may be told one, by the pod's name; `placed` is what each should hold."""
    made = {state.pod.name: _with_proven(state, pods, placed) for state in pods}
    return {name: document for name, document in made.items() if document is not None}


def _with_proven(state: PodState, pods: Sequence[PodState], placed: Mapping[str, Document]) -> Document | None:
    own = placed[state.pod.name]
    if state.pod.ready:
        return own
    proven = _proven(state, pods, placed)
    if not proven:
        return own
    without_room = proven.keys() - {entry.id for entry in own}
    if any(proven[name].residency is Residency.REQUIRED for name in without_room):
        return None
    return [wanted.model_copy(update={"proven": True}) if wanted.id in proven else wanted for wanted in own]


def _proven(
    state: PodState, pods: Sequence[PodState], placed: Mapping[str, Document]
) -> dict[AdapterId, DesiredAdapter]:
    """What ready pods of another template serve and are to go on serving."""
    found: dict[AdapterId, DesiredAdapter] = {}
    for other in pods:
        if other.pod.ready and other.pod.template != state.pod.template and other.report is not None:
            served = {entry.id for entry in other.report.adapters if entry.reason is AdapterReason.RESIDENT}
            found |= {wanted.id: wanted for wanted in placed[other.pod.name] if wanted.id in served}
    return found
