"""Which versions the adapter store is asked about in a pass, and against which base. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from motet_api.identity import Digest
from motet_api.reasons import AdapterReason, ConditionType
from motet_api.store import ArtifactRequest
from motet_operator.adapters.home import at_home
from motet_operator.adapters.tenancy import not_allowed
from motet_operator.adapters.versions import Version, id_of, versions_of
from motet_operator.clients.artifacts import Wish
from motet_operator.conditions import find
from motet_operator.keys import ModelKey
from motet_operator.snapshot import PodState, Site, Snapshot
from motet_operator.views import Adapter

_UNSIGNED: Final = frozenset({AdapterReason.SIGNATURE_MISSING, AdapterReason.SIGNATURE_INVALID})
_NOT_FETCHED: Final = frozenset({AdapterReason.FETCH_FAILED, AdapterReason.SOURCE_NOT_FOUND})
"""What pods say of a store that does not answer, and of one that has it not."""


def wishes(snapshot: Snapshot) -> list[Wish]:
    """Every version at home that the store fetches; not those whose adapter may not be here at all."""
    return [wish for adapter in at_home(snapshot) for wish in _of_adapter(adapter, snapshot)]


def base_ips(sites: Mapping[ModelKey, Site]) -> dict[Digest, str]:
    """For each base a pod that has it."""
    return {
        state.report.base_digest: state.pod.ip
        for site in sites.values()
        for state in site.pods
        if state.report is not None and state.report.base_digest is not None
    }


def _of_adapter(adapter: Adapter, snapshot: Snapshot) -> Iterator[Wish]:
    beyond = snapshot.tenants.over_quota.get(adapter.name)
    sites = snapshot.sites
    quota = snapshot.tenants.policy.of(adapter.meta.namespace).max_bytes
    for version in versions_of(adapter):
        if beyond is not None and beyond.of(version.name):
            continue
        site = sites.get(version.model)
        if not version.source.remote or site is None or site.model is None or site.model.spec is None:
            continue
        if not not_allowed(site.model, adapter.meta.namespace, snapshot.tenants.labels):
            request = _request(adapter, version, _base(site.pods), site.model.spec.adapters.max_rank, quota)
            yield Wish((adapter.name, version.name), request, _worried(adapter, version, site.pods))


def _request(
    adapter: Adapter, version: Version, base: Digest | None, max_rank: int, quota: int | None
) -> ArtifactRequest:
    source = version.source
    return ArtifactRequest(
        namespace=adapter.meta.namespace,
        uri=source.uri,
        revision=_revision(version),
        digest=Digest(version.digest) if version.digest else None,
        secret_name=source.secret_ref.name if source.secret_ref else None,
        base_digest=base,
        max_rank=max_rank,
        max_bytes=_bound(version, quota),
    )


def _bound(version: Version, quota: int | None) -> int | None:
    """The bytes that it may have: those that it was given of the quota, none before it is known how many it has.

    What was fetched once has been given its bytes, and has no others.
    """
    recorded = version.recorded
    if quota is None or (recorded is not None and recorded.digest is not None):
        return None
    return (recorded.size_bytes if recorded is not None else None) or 0


def _revision(version: Version) -> str | None:
    """The state of the source in which the bytes were found: a branch or tag may have moved on since.

    Not while a signature is missed: that may lie beside the same bytes in a later one.
    """
    recorded = version.recorded
    if recorded is None or not recorded.revision or not version.source.has_revisions:
        return version.source.revision
    verified = find(recorded.conditions, ConditionType.VERIFIED)
    return version.source.revision if verified and verified.reason in _UNSIGNED else recorded.revision


def _base(pods: Sequence[PodState]) -> Digest | None:
    """The base to check against: that of the pods that serve, while others come up with another."""
    known = [state for state in pods if state.report is not None and state.report.base_digest is not None]
    first = min(known, key=lambda state: (not state.pod.ready, state.pod.name), default=None)
    return first.report.base_digest if first is not None and first.report is not None else None


def _worried(adapter: Adapter, version: Version, pods: Sequence[PodState]) -> bool:
    """Whether a pod could not fetch it: the store may have lost its disk, and does not know that it is wanted."""
    name = id_of(adapter, version)
    return any(
        entry.id == name and entry.reason in _NOT_FETCHED
        for state in pods
        if state.report is not None
        for entry in state.report.adapters
    )
