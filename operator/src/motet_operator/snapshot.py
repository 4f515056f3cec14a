"""All that a decision may go by: one ModelDeployment and its surroundings at one moment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from motet_api.policy import Policy
from motet_api.store import ArtifactReport
from motet_api.wire import AdapterOutcome, AdaptersReport
from motet_operator.adapters.quota import Beyond
from motet_operator.clients.artifacts import Answers
from motet_operator.keys import Kind, ModelKey, ObjectName
from motet_operator.views import Adapter, ChildView, Model, Pod


@dataclass(frozen=True, slots=True)
class PodState:
    """A pod and what it says it holds. No report means unknown, never empty; `silence` says why there is none."""

    pod: Pod
    report: AdaptersReport | None = None
    silence: str = ""


@dataclass(frozen=True, slots=True)
class BaseAnswer:
    """What the store says of the base. No report means unknown, or that it was not asked; `silence` says why."""

    report: ArtifactReport | None = None
    silence: str = ""


@dataclass(frozen=True, slots=True)
class Applied:
    """What was last applied for a child: digests of what we sent, and of the fields that the answer said are ours."""

    manifest: str
    owned_fields: str


@dataclass(frozen=True, slots=True)
class Tenants:
    """Who may use what. `labels` of namespaces, None where they are not seen; `over_quota` is by adapter."""

    labels: Mapping[str, Mapping[str, str]] | None = None
    over_quota: Mapping[ObjectName, Beyond] = field(default_factory=dict)
    policy: Policy = field(default_factory=Policy)


@dataclass(frozen=True, slots=True)
class Site:
    """A model, its pods, and all adapters that have a version on it."""

    key: ModelKey
    model: Model | None = None
    adapters: tuple[Adapter, ...] = ()
    pods: tuple[PodState, ...] = ()


_NO_CHILDREN: Mapping[Kind, ChildView] = MappingProxyType({})
_NOTHING_APPLIED: Mapping[Kind, Applied] = MappingProxyType({})
_NO_SITES: Mapping[ModelKey, Site] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`model` is None where the ModelDeployment does not exist. `applied` is what this process remembers of its own
    writes: it saves writes and decides nothing else; where it is empty the children are applied once more.

    `foreign` has the other models on which adapters that are at home here have versions.
    """

    key: ModelKey
    model: Model | None = None
    adapters: tuple[Adapter, ...] = ()
    children: Mapping[Kind, ChildView] = field(default_factory=lambda: _NO_CHILDREN)
    pods: tuple[PodState, ...] = ()
    applied: Mapping[Kind, Applied] = field(default_factory=lambda: _NOTHING_APPLIED)
    base: BaseAnswer = BaseAnswer()
    foreign: Mapping[ModelKey, Site] = field(default_factory=lambda: _NO_SITES)
    tenants: Tenants = Tenants()
    artifacts: Answers | None = None
    """What the adapter store says; None where there is none."""
    outcomes: Mapping[ObjectName, Sequence[AdapterOutcome | None]] | None = field(default_factory=dict)
    """What each gateway says of the adapters that it was asked about; None where there are no gateways to ask."""

    @property
    def sites(self) -> dict[ModelKey, Site]:
        """This model and the foreign ones. A model on its way out is none any more."""
        model = None if self.model is not None and self.model.deleting else self.model
        return {self.key: Site(self.key, model, self.adapters, self.pods), **self.foreign}
