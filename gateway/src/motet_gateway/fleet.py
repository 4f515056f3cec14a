"""What the pods hold, and so which of them may answer. Pure.

Invariant: a pod is asked only if Kubernetes calls it ready AND it said itself, lately, that it is not draining, that
its base is loaded and that the version is resident. A pod that has said nothing is unknown: it is neither asked nor
taken for empty.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from motet_api.identity import AdapterId
from motet_api.names import BASE_MODEL_ALIAS
from motet_gateway.table import ObjectKey, Pod, PodKey, Source


@dataclass(frozen=True, slots=True)
class PodView:
    """What a pod last said of itself. `fresh` is false once it has missed a poll since."""

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
    sources: Mapping[AdapterId, Source] = field(default_factory=dict)
    """What the pod was told to load under each id."""

    def believed(self, expected: Mapping[AdapterId, Source]) -> "PodView":
        """The view with what counts as resident: a version loaded from another source than it now has is another one.

        A LoraAdapter that was deleted and made anew can have other weights under the same name and version. Until the
        operator has told the pod, the old ones must not answer for them; it is about to, so the version counts as
        loading.
        """
        other = {name for name in self.resident if name in expected and self.sources.get(name) != expected[name]}
        return replace(self, resident=self.resident - other, loading=self.loading | other) if other else self

    def serves(self, adapter: AdapterId | None) -> bool:
        """Whether the pod can answer for this version, or for the base (None)."""
        return self.base_loaded and not self.draining and (adapter is None or adapter in self.resident)


@dataclass(frozen=True, slots=True)
class Hopeless:
    """Why a version will not become resident by waiting."""

    message: str


@dataclass(frozen=True, slots=True)
class Fleet:
    """The pods of each model and what each last said. A pod without a view is unknown."""

    pods: Mapping[ObjectKey, tuple[Pod, ...]] = field(default_factory=dict)
    views: Mapping[PodKey, PodView] = field(default_factory=dict)

    def serving(self, model: ObjectKey, adapter: AdapterId | None) -> list[tuple[Pod, PodView]]:
        """Ready pods that can answer, whatever their load. Pods that missed a poll only if there are no others."""
        found = [
            (pod, view)
            for pod in self.pods.get(model, ())
            if pod.ready and (view := self.views.get(pod.key)) is not None and view.serves(adapter)
        ]
        return [(pod, view) for pod, view in found if view.fresh] or found

    def base_name(self, model: ObjectKey) -> str:
        """What the pods of a model call its base in an OpenAI request; answers repeat it."""
        known = (self.views.get(pod.key) for pod in self.pods.get(model, ()))
        return next((view.model for view in known if view is not None), BASE_MODEL_ALIAS)

    def hopeless(self, model: ObjectKey, adapter: AdapterId | None) -> Hopeless | None:
        """Why it is no use waiting for a pod, or None if one serves or may come to serve.

        | some pod of the model            | answer                                     |
        |----------------------------------|--------------------------------------------|
        | serves it, or is loading it      | wait                                       |
        | is unknown, or not told yet      | wait: it may turn out to hold it           |
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
            if view is None or not view.desired_known or adapter in view.loading or adapter in view.resident:
                return None
        failures = sorted({view.failed[adapter] for view in up if view is not None and adapter in view.failed})
        if failures:
            return Hopeless(f"{adapter} cannot be loaded: {'; '.join(failures)}")
        return Hopeless(f"{adapter} is not on any pod of {model} yet")
