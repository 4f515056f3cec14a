"""What is said of the adapters that are at home in one ModelDeployment, wherever their versions sit. Pure.

An adapter's home is the ModelDeployment that spec.modelRef names. Its pass, and no other, writes the adapter's status.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime

from motet_api.identity import AdapterId
from motet_api.loraadapter import LoraAdapterStatus
from motet_api.reasons import AdapterReason, Reason
from motet_api.store import Refusal
from motet_operator import looks
from motet_operator.adapters.adapter_status import Said, Surroundings, adapter_status, missing_model, orphan_status
from motet_operator.adapters.assignment import told
from motet_operator.adapters.residency import Standing
from motet_operator.adapters.rollout import judged_since
from motet_operator.adapters.version_conditions import Store, store_failure
from motet_operator.adapters.versions import Version, home_of, id_of, versions_of
from motet_operator.conditions import Stamp, no
from motet_operator.keys import ModelKey, ObjectName
from motet_operator.snapshot import Site, Snapshot
from motet_operator.views import Adapter

Found = Mapping[ModelKey, Mapping[AdapterId, Standing]]
"""What is true of every version on every model that matters here."""


def at_home(snapshot: Snapshot) -> Iterator[Adapter]:
    """The adapters whose status this pass writes."""
    for adapter in snapshot.adapters:
        home = home_of(adapter)
        if not adapter.deleting and (home is None or home == snapshot.key):
            yield adapter


def span_of(adapter: Adapter, now: datetime) -> float | None:
    """Of how many seconds the gateways must tell what became of an adapter's requests; None if nothing hangs on it.

    None of them may be from before the step began: that moment is recorded without its fraction of a second.
    """
    if adapter.spec is None or adapter.status is None:
        return None
    since = judged_since(adapter.spec.rollout, adapter.status.rollout)
    if since is not None:
        return max((now - since).total_seconds() - 1, 0.0)
    return 1.0 if _retiring(adapter, adapter.status) else None


def _retiring(adapter: Adapter, status: LoraAdapterStatus) -> bool:
    """Whether a version is still there that spec does not name and no split leads to."""
    used = {version.name for version in versions_of(replace(adapter, status=status)) if version.in_spec}
    used |= {target.version for target in status.traffic if target.weight > 0}
    return any(version.name not in used for version in status.versions)


def statuses(snapshot: Snapshot, found: Found, now: datetime) -> dict[ObjectName, Said]:
    """What is said of every adapter at home."""
    sites = snapshot.sites
    made: dict[ObjectName, Said] = {}
    for adapter in at_home(snapshot):
        stamp = Stamp(adapter.meta.generation, now)
        models = {version.model for version in versions_of(adapter)} or {snapshot.key}
        if all(sites.get(key, Site(key)).model is None for key in models):
            made[adapter.name] = Said(orphan_status(adapter, snapshot.key.name, stamp))
        else:
            made[adapter.name] = adapter_status(adapter, _surroundings(adapter, snapshot, sites, found), stamp)
    return made


def waits(adapter: Adapter, said: Said, key: ModelKey) -> Iterator[float]:
    """After how long an adapter should be looked at again, beside what its own model's pods are doing."""
    status = said.status
    if said.look_again is not None:
        yield said.look_again
    if adapter.status != status and told(adapter, adapter.status) != told(adapter, status):
        # What pods are told follows from what is recorded, and that has just changed.
        yield looks.AT_ONCE
    if _retiring(adapter, status):
        yield looks.RETIRING
    elsewhere = {version.name for version in versions_of(adapter) if version.model != key}
    for entry in status.versions:
        for condition in entry.conditions:
            if condition.status == "True":
                continue
            if condition.reason == Reason.FETCHING or (
                entry.name in elsewhere and condition.reason == AdapterReason.LOADING
            ):
                yield looks.SOON
            elif condition.reason == Reason.STORE_UNREACHABLE:
                yield looks.LATER


def _surroundings(adapter: Adapter, snapshot: Snapshot, sites: Mapping[ModelKey, Site], found: Found) -> Surroundings:
    versions = versions_of(adapter)
    serving = all(
        any(state.pod.ready for state in sites[version.model].pods)
        for version in versions
        if version.in_spec and version.model in sites
    )
    answers = snapshot.artifacts
    artifacts = {
        version.name: report
        for version in versions
        if answers is not None and (report := answers.reports.get((adapter.name, version.name))) is not None
    }
    return Surroundings(
        standings={
            version.name: _standing(adapter, version, sites, found, store_failure(artifacts.get(version.name)))
            for version in versions
        },
        serving=serving,
        store=Store.NONE if answers is None else Store.SILENT if answers.silence else Store.ANSWERED,
        artifacts=artifacts,
        gateways=snapshot.outcomes.get(adapter.name) if snapshot.outcomes is not None else None,
        judges=snapshot.outcomes is not None,
        based={version.name for version in versions if version.model in sites and _based(sites[version.model])},
    )


def _based(site: Site) -> bool:
    return any(state.report is not None and state.report.base_digest is not None for state in site.pods)


def _standing(
    adapter: Adapter, version: Version, sites: Mapping[ModelKey, Site], found: Found, failure: Refusal | None
) -> Standing:
    site = sites.get(version.model)
    if site is None or site.model is None:
        return missing_model(f"ModelDeployment {version.model}, which serves {version.name}, does not exist")
    standing = found[version.model][id_of(adapter, version)]
    return standing if failure is None else _for_want_of(failure, standing)


def _for_want_of(failure: Refusal, standing: Standing) -> Standing:
    """A pod that cannot fetch a version says less than the store, which says why it has none."""
    if standing.verdict.reason is not AdapterReason.FETCH_FAILED:
        return standing
    message = f"{failure.message}; so {standing.verdict.message}"
    return replace(standing, verdict=no(failure.reason, message), final=not failure.reason.transient)
