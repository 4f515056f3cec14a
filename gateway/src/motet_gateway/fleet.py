"""What the pods hold, and so which of them may answer. Pure.

Invariant: a pod is asked only if Kubernetes calls it ready AND it said itself, lately, that it is not draining, that
its base is loaded and that the version is resident, or that it loads it for whoever asks (spec.residency). A pod that
has said nothing is unknown: it is neither asked nor taken for empty.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from motet_api.identity import AdapterId
from motet_api.loraadapter import Residency
from motet_api.names import BASE_MODEL_ALIAS
from motet_gateway.table import Expected, ObjectKey, Pod, PodKey, Source


@dataclass(frozen=True, slots=True)
class PodView:
    """What a pod last said of itself. `fresh` is false once it has missed a poll since.

    `behind`: the table says something else of what its model's pods hold than when the pod was asked.
    """

    model: str
    """What the pod calls its base."""
    resident: frozenset[AdapterId]
    loading: frozenset[AdapterId]
    failed: Mapping[AdapterId, str]
    base_loaded: bool
    desired_known: bool
    draining: bool
    max_batch_size: int
    fresh: bool = True
    behind: bool = False
    standby: frozenset[AdapterId] = frozenset()
    """Known and not loaded: a request for it is held by the pod while it loads."""
    warming: frozenset[AdapterId] = frozenset()
    """Those of `loading` for which the pod holds requests meanwhile."""
    failing: frozenset[AdapterId] = frozenset()
    """Those of `failed` that a request makes the pod try again, once some time has passed."""
    sources: Mapping[AdapterId, Source] = field(default_factory=dict)
    """Where each resident version came from, as verified; where each other one is to come from."""

    def believed(self, expected: Mapping[AdapterId, Expected], loads_for_requests: bool = True) -> "PodView":
        """The view with what counts as held: a version from another source than it now has is another one.

        A LoraAdapter that was deleted and made anew can have other weights under the same name and version. Until the
        operator has told the pod, the old ones must not answer for them; it is about to, so the version counts as
        loading.

        Args:
            loads_for_requests: false for an engine with an agent beside it, which sees no requests.
        """
        held = self.resident | self.standby
        other = {name for name in held if name in expected and not expected[name].is_met_by(self.sources.get(name))}
        on_demand = {name for name in self.loading | self.failed.keys() if self._on_demand(name, expected)}
        warming = self.loading & on_demand if loads_for_requests else frozenset()
        failing = frozenset(on_demand - self.loading) if loads_for_requests else frozenset()
        if not other and (warming, failing) == (self.warming, self.failing):
            return self
        return replace(
            self,
            resident=self.resident - other,
            standby=self.standby - other,
            loading=self.loading | other,
            warming=warming,
            failing=failing,
        )

    def _on_demand(self, name: AdapterId, expected: Mapping[AdapterId, Expected]) -> bool:
        # What every pod is to hold is loaded whether it is asked for or not, and requests wait for it here. What is
        # loaded for a request is waited for at the pod, so that no second pod loads it for the next one.
        wanted = expected.get(name)
        return (
            wanted is not None and wanted.residency is Residency.ON_DEMAND and wanted.is_met_by(self.sources.get(name))
        )


class Tiers(NamedTuple):
    """Pods that can be sent requests for a version, best first."""

    resident: list[tuple[Pod, PodView]]
    warming: list[tuple[Pod, PodView]]
    """It is being loaded there for a request, and further ones are held."""
    standby: list[tuple[Pod, PodView]]
    """A request would load it."""
    failing: list[tuple[Pod, PodView]]
    """A request may make it try again what has failed."""

    @property
    def best(self) -> list[tuple[Pod, PodView]]:
        """The pods of the first tier that has any, but for those where it has failed."""
        return self.resident or self.warming or self.standby


@dataclass(frozen=True, slots=True)
class Hopeless:
    """Why a version will not become resident by waiting."""

    message: str


@dataclass(frozen=True, slots=True)
class Fleet:
    """The pods of each model and what each last said. A pod without a view is unknown."""

    pods: Mapping[ObjectKey, tuple[Pod, ...]] = field(default_factory=dict)
    views: Mapping[PodKey, PodView] = field(default_factory=dict)

    def tiers(self, model: ObjectKey, adapter: AdapterId | None) -> Tiers:
        """Ready pods by how soon they can answer, whatever their load. Pods that missed a poll only if no other can."""
        tiers = Tiers([], [], [], [])
        silent = Tiers([], [], [], [])
        for pod in self.pods.get(model, ()):
            view = self.views.get(pod.key)
            if not pod.ready or view is None or not view.base_loaded or view.draining:
                continue
            found = tiers if view.fresh else silent
            if adapter is None or adapter in view.resident:
                found.resident.append((pod, view))
            elif adapter in view.warming:
                found.warming.append((pod, view))
            elif adapter in view.standby:
                found.standby.append((pod, view))
            elif adapter in view.failing:
                found.failing.append((pod, view))
        return silent if silent.best and not tiers.best else tiers

    def serving(self, model: ObjectKey, adapter: AdapterId | None) -> list[tuple[Pod, PodView]]:
        """The best of `tiers`: empty if no pod is known to be able to answer."""
        return self.tiers(model, adapter).best

    def base_name(self, model: ObjectKey) -> str:
        """What the pods of a model call its base in an OpenAI request; answers repeat it."""
        known = (self.views.get(pod.key) for pod in self.pods.get(model, ()))
        return next((view.model for view in known if view is not None), BASE_MODEL_ALIAS)

    def hopeless(self, model: ObjectKey, adapter: AdapterId | None) -> Hopeless | None:
        """Why it is no use waiting for a pod, or None if one serves or may come to serve.

        | some pod of the model            | answer                                     |
        |----------------------------------|--------------------------------------------|
        | serves or loads it, or would     | wait                                       |
        | is unknown, or not told yet      | wait: it may turn out to hold it           |
        | was asked before the table said  | wait: it is being asked again              |
        | none is up (starting, scaling)   | wait: pods load before they are ready      |
        | all said they failed to load it  | hopeless, with what the pods said          |
        | all hold other things, not this  | hopeless: the operator has not sent it yet |

        The base is never hopeless: pods come and go, and the waiting time is bounded.
        """
        if adapter is None:
            return None
        views = [self.views.get(pod.key) for pod in self.pods.get(model, ())]
        up = [view for view in views if view is None or not view.draining]
        if not up:
            return None
        for view in up:
            if view is None or view.behind or not view.desired_known:
                return None
            if any(adapter in names for names in (view.resident, view.loading, view.standby, view.failing)):
                return None
        failures = sorted({view.failed[adapter] for view in up if view is not None and adapter in view.failed})
        if failures:
            return Hopeless(f"{adapter} cannot be loaded: {'; '.join(failures)}")
        return Hopeless(f"{adapter} is not on any pod of {model} yet")
