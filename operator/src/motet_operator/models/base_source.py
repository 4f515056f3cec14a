"""Which base the pods of a ModelDeployment are made from, and what is to be said of the one that spec names. Pure.

Invariant: pods are made from what status.source records, and that is only ever a base that needs no fetching or one
that the store has verified. While a new source is being fetched, or cannot be, the old one stays in effect: nothing is
rolled towards files that are not there.

    spec.model.source        the store says        SourceResolved          status.source
    -----------------        --------------        --------------          -------------
    file:// or pvc://        (is not asked)        True                    that source
    fetched                  there is no store     False                   as it was
    fetched                  nothing               Unknown                 as it was
    fetched                  verified              True                    that source, with its digest
    fetched                  failed                False, its reason       as it was
    fetched                  anything else         False Fetching          as it was
"""

from dataclasses import dataclass
from typing import Final

from motet_api.identity import Digest
from motet_api.modeldeployment import ModelDeploymentStatus, ModelSourceStatus
from motet_api.objects import ModelSource
from motet_api.reasons import Reason
from motet_api.store import ArtifactKind, ArtifactReport, ArtifactRequest, ArtifactState
from motet_operator.conditions import Verdict, no, unknown, yes
from motet_operator.snapshot import BaseAnswer
from motet_operator.views import Model

_NEEDS_A_STORE: Final = (
    "spec.model.source is fetched by the adapter store, and this installation has none: set the chart value "
    "store.enabled, or name a pvc:// or file:// source"
)


@dataclass(frozen=True, slots=True)
class BaseSource:
    """`effective` is what pods are made from: None before there is anything. `current` says whether it is what spec
    names; `final` that waiting will not help.
    """

    verdict: Verdict
    effective: ModelSourceStatus | None
    current: bool
    final: bool = False

    @property
    def pending(self) -> bool:
        """Whether the store should be asked again soon."""
        return self.verdict.reason == Reason.FETCHING


def base_request(model: Model) -> ArtifactRequest | None:
    """What the store is asked; None if nothing has to be fetched.

    Once a base is recorded, exactly those bytes are asked for, whatever the source means by now.
    """
    if model.spec is None or not model.spec.model.source.remote:
        return None
    source = model.spec.model.source
    pinned = _pinned(source, model.status)
    return ArtifactRequest(
        kind=ArtifactKind.BASE_MODEL,
        namespace=model.meta.namespace,
        uri=source.uri,
        revision=(pinned.revision if pinned and source.has_revisions else "") or source.revision,
        digest=Digest(pinned.digest) if pinned else source.digest and Digest(source.digest),
        secret_name=source.secret_ref.name if source.secret_ref else None,
    )


def base_source(model: Model, answer: BaseAnswer, store: str) -> BaseSource:
    """What follows from spec, status and what the store says. `store` is its address; empty if there is none."""
    recorded = _recorded(model.status)
    if model.spec is None:
        return BaseSource(unknown(Reason.INVALID_SPEC, model.error), recorded, current=False, final=True)
    source = model.spec.model.source
    if not source.remote:
        local = ModelSourceStatus(uri=source.uri)
        return BaseSource(yes(Reason.RESOLVED, f"the pods read {source.uri} themselves"), local, current=True)
    current = _pinned(source, model.status) is not None
    if not store:
        return BaseSource(no(Reason.STORE_NOT_CONFIGURED, _NEEDS_A_STORE), recorded, current, final=True)
    if answer.report is None:
        return BaseSource(unknown(Reason.STORE_UNREACHABLE, f"the store: {answer.silence}"), recorded, current)
    return _fetched(source, answer.report, recorded, current)


def _fetched(
    source: ModelSource, report: ArtifactReport, recorded: ModelSourceStatus | None, current: bool
) -> BaseSource:
    if report.state is ArtifactState.FAILED and report.failure is not None:
        failure = report.failure
        return BaseSource(no(failure.reason, failure.message), recorded, current, final=not failure.reason.transient)
    if report.state is ArtifactState.VERIFIED and report.digest is not None:
        found = ModelSourceStatus(uri=_named(source), revision=report.revision, digest=report.digest)
        message = f"{found.uri} is {found.digest}" + (f", revision {found.revision}" if found.revision else "")
        return BaseSource(yes(Reason.RESOLVED, message), found, current=True)
    return BaseSource(no(Reason.FETCHING, f"{source.uri}: {progress(report)}"), recorded, current)


def progress(report: ArtifactReport) -> str:
    """How far the store is, in words."""
    if report.state is not ArtifactState.FETCHING or report.size_bytes is None:
        return report.state.value
    return f"{report.state}: {report.fetched_bytes / 2**30:.1f} of {report.size_bytes / 2**30:.1f} GiB"


def _named(source: ModelSource) -> str:
    """The source as status names it: a revision that was asked for is part of the name."""
    return f"{source.uri}@{source.revision}" if source.revision else source.uri


def _recorded(status: ModelDeploymentStatus | None) -> ModelSourceStatus | None:
    return status.source if status else None


def _pinned(source: ModelSource, status: ModelDeploymentStatus | None) -> ModelSourceStatus | None:
    """What was recorded of this very source; None if it names another by now."""
    recorded = _recorded(status)
    if recorded is None or not recorded.digest or recorded.uri != _named(source):
        return None
    return recorded if source.digest in (None, recorded.digest) else None
