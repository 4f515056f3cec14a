"""What is said of one version: `Resolved`, `Verified`, `Compatible`, `Resident`, `Retiring`. Pure.

Of a source that the adapter store fetches, the store is the only witness of the first three. Sources that pods read
themselves have the pods as witnesses. Of a failure, `BLAMES` says which of the conditions it belongs to: what comes
before it in that order is not touched by it, what comes after it is unknown.

What was once found of a version stays true: versions never change. That the store cannot get the same bytes again is
said in the message, and changes nothing else; only the installation's policy takes back what was verified.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from motet_api.reasons import AdapterReason, ConditionType, Reason
from motet_api.store import ArtifactReport, ArtifactState, Refusal
from motet_operator.adapters.residency import Standing
from motet_operator.adapters.versions import Version
from motet_operator.conditions import Verdict, no, unknown, yes

BLAMES: Final[Mapping[AdapterReason, ConditionType]] = {
    AdapterReason.SOURCE_NOT_FOUND: ConditionType.RESOLVED,
    AdapterReason.SOURCE_NOT_MOUNTED: ConditionType.RESOLVED,
    AdapterReason.FETCH_FAILED: ConditionType.RESOLVED,
    AdapterReason.SOURCE_FORBIDDEN: ConditionType.RESOLVED,
    AdapterReason.SOURCE_NOT_ALLOWED: ConditionType.RESOLVED,
    AdapterReason.INVALID_SOURCE: ConditionType.RESOLVED,
    AdapterReason.TOO_LARGE: ConditionType.RESOLVED,
    AdapterReason.SECRET_NOT_FOUND: ConditionType.RESOLVED,
    AdapterReason.STORE_FULL: ConditionType.RESOLVED,
    AdapterReason.DIGEST_MISMATCH: ConditionType.RESOLVED,
    AdapterReason.UNSAFE_FORMAT: ConditionType.VERIFIED,
    AdapterReason.CORRUPT_WEIGHTS: ConditionType.VERIFIED,
    AdapterReason.INVALID_CONFIG: ConditionType.VERIFIED,
    AdapterReason.SIGNATURE_MISSING: ConditionType.VERIFIED,
    AdapterReason.SIGNATURE_INVALID: ConditionType.VERIFIED,
    AdapterReason.UNSUPPORTED: ConditionType.COMPATIBLE,
    AdapterReason.RANK_TOO_LARGE: ConditionType.COMPATIBLE,
    AdapterReason.BASE_MISMATCH: ConditionType.COMPATIBLE,
    AdapterReason.LOAD_FAILED: ConditionType.RESIDENT,
}
"""The condition that a failure makes False."""
_NOT_ASKED: Final = frozenset({Reason.NOT_ALLOWED, Reason.QUOTA_EXCEEDED, Reason.MODEL_DEPLOYMENT_NOT_FOUND})
"""The store is not asked for what may not be here."""
_NO_STORE: Final = "its source is fetched by the adapter store, and there is none (chart value store.enabled)"
_ORDER: Final = (ConditionType.RESOLVED, ConditionType.VERIFIED, ConditionType.COMPATIBLE, ConditionType.RESIDENT)
_HEALTHY: Final[Mapping[ConditionType, Reason]] = {
    ConditionType.RESOLVED: Reason.RESOLVED,
    ConditionType.VERIFIED: Reason.VERIFIED,
    ConditionType.COMPATIBLE: Reason.COMPATIBLE,
}


class Store(Enum):
    """How the adapter store answered this time."""

    NONE = auto()
    """There is none in this installation."""
    SILENT = auto()
    ANSWERED = auto()


@dataclass(frozen=True, slots=True)
class Witnesses:
    """What is known of one version from elsewhere: the pods, and of sources that it fetches the adapter store."""

    standing: Standing
    store: Store = Store.NONE
    artifact: ArtifactReport | None = None
    base_known: bool = False
    """Whether a pod has said what its base is, so that the store can check against it."""


@dataclass(frozen=True, slots=True)
class _Trouble:
    """Why the store does not get an artifact, and which condition that makes False."""

    reason: Reason | AdapterReason
    message: str
    blamed: ConditionType
    by_policy: bool = False


def resolved(version: Version, seen: Witnesses) -> Verdict:
    """Whether the bytes are known by digest.

    fetched by the store             read by pods                       Resolved
    --------------------             ------------                       --------
    verified before, no policy                                          True     Resolved, and what is the matter
    there is no store                                                   False    StoreNotConfigured
    failed, `BLAMES` Resolved        failed, the same, no digest known  False    its reason
                                     DigestMismatch                     False    DigestMismatch
    digest known                     digest known                       True     Resolved
    the store is silent                                                 Unknown  StoreUnreachable
    else                             else                               Unknown  Fetching, or what pods are at
    """
    if version.source.remote:
        return _by_store(version, seen, ConditionType.RESOLVED, known=digest_of(version, seen) is not None)
    failure = seen.standing.failure
    digest = digest_of(version, seen)
    blamed = failure is not None and _blamed(failure.reason) is ConditionType.RESOLVED
    if failure is not None and blamed and (digest is None or failure.reason is AdapterReason.DIGEST_MISMATCH):
        return no(failure.reason, failure.message)
    return yes(Reason.RESOLVED, digest) if digest is not None else _pods_are_at_it(seen)


def verified(version: Version, seen: Witnesses) -> Verdict:
    """Whether the files are whole, safe and well formed.

    failed, `BLAMES` Verified                              False    its reason
    the store, or a pod, has verified it, or had before    True     Verified
    failed before that, or not known yet                   Unknown  as Resolved
    """
    if version.source.remote:
        known = seen.artifact is not None and seen.artifact.state is ArtifactState.VERIFIED
        return _by_store(version, seen, ConditionType.VERIFIED, known)
    return _by_pods(version, seen, ConditionType.VERIFIED)


def compatible(version: Version, seen: Witnesses) -> Verdict:
    """Whether it fits the base and the largest rank.

    the store's `mismatch`, or failed and `BLAMES` Compatible     False    its reason
    the store says so, or a pod holds it, or it was so before     True     Compatible
    the store has not checked it yet                              Unknown  Fetching
    no pod has said what the base is                              Unknown  BaseUnknown
    failed before that, or not known yet                          Unknown  as Verified
    """
    if not version.source.remote:
        return _by_pods(version, seen, ConditionType.COMPATIBLE)
    artifact = seen.artifact
    if artifact is not None and artifact.state is ArtifactState.VERIFIED:
        if artifact.compatible is False:
            refusal = artifact.mismatch or Refusal(reason=AdapterReason.BASE_MISMATCH, message="")
            return no(refusal.reason, refusal.message)
        if artifact.compatible is None and not version.was(ConditionType.COMPATIBLE):
            if seen.base_known:
                return unknown(Reason.FETCHING, "the adapter store has yet to check it against the base")
            return unknown(Reason.BASE_UNKNOWN, "no pod of the model has said yet what its base looks like")
    known = artifact is not None and artifact.state is ArtifactState.VERIFIED
    return _by_store(version, seen, ConditionType.COMPATIBLE, known)


def resident(seen: Witnesses) -> Verdict:
    """Whether every pod that must hold it does: the table is in residency.py."""
    return seen.standing.verdict


def _by_store(version: Version, seen: Witnesses, kind: ConditionType, known: bool) -> Verdict:
    trouble = _trouble(seen)
    held = version.proven and version.was(kind)
    if trouble is not None and not (held and not trouble.by_policy):
        if trouble.blamed is kind or trouble.reason is Reason.STORE_NOT_CONFIGURED:
            return no(trouble.reason, trouble.message)
        if _ORDER.index(trouble.blamed) < _ORDER.index(kind):
            return unknown(trouble.reason, trouble.message)
    if known or version.was(kind):
        again = f"it was found before, and now: {trouble.message}" if trouble and trouble.blamed is kind else ""
        found = digest_of(version, seen) if kind is ConditionType.RESOLVED else None
        return yes(_HEALTHY[kind], "; ".join(filter(None, (found, again))))
    if seen.standing.verdict.reason in _NOT_ASKED:
        return unknown(seen.standing.verdict.reason, seen.standing.verdict.message)
    if seen.store is Store.SILENT:
        return unknown(Reason.STORE_UNREACHABLE, "the adapter store does not answer")
    return unknown(Reason.FETCHING, _progress(seen.artifact))


def _trouble(seen: Witnesses) -> _Trouble | None:
    if seen.store is Store.NONE:
        return _Trouble(Reason.STORE_NOT_CONFIGURED, _NO_STORE, ConditionType.RESOLVED)
    failure = store_failure(seen.artifact)
    if failure is None:
        return None
    blamed = _blamed(failure.reason)
    # The store does nothing else with an artifact: what keeps it from getting it is no matter of the pods.
    blamed = ConditionType.RESOLVED if blamed is ConditionType.RESIDENT else blamed
    return _Trouble(failure.reason, failure.message, blamed, failure.reason.by_policy)


def store_failure(artifact: ArtifactReport | None) -> Refusal | None:
    """Why the store cannot get an artifact."""
    return artifact.failure if artifact is not None and artifact.state is ArtifactState.FAILED else None


def _by_pods(version: Version, seen: Witnesses, kind: ConditionType) -> Verdict:
    failure = seen.standing.failure
    if failure is not None:
        blamed = _blamed(failure.reason)
        if blamed is kind:
            return no(failure.reason, failure.message)
        if _ORDER.index(blamed) < _ORDER.index(kind) and seen.standing.facts is None:
            return unknown(failure.reason, failure.message)
    if seen.standing.facts is not None or version.was(kind):
        return yes(_HEALTHY[kind], "")
    return _pods_are_at_it(seen)


def _pods_are_at_it(seen: Witnesses) -> Verdict:
    verdict = seen.standing.verdict
    return unknown(verdict.reason, verdict.message)


def _progress(artifact: ArtifactReport | None) -> str:
    if artifact is None:
        return "the adapter store has not answered for it yet"
    # In tenths: every other number would be another write of status.
    of = f", {10 * (10 * artifact.fetched_bytes // artifact.size_bytes)}%" if artifact.size_bytes else ""
    return f"the adapter store is at it ({artifact.state}{of})"


def digest_of(version: Version, seen: Witnesses) -> str | None:
    """The digest that the bytes have, as far as anybody knows: what was recorded once holds."""
    if version.digest is not None:
        return version.digest
    if version.source.remote:
        return seen.artifact.digest if seen.artifact else None
    return seen.standing.facts.digest if seen.standing.facts else None


def _blamed(reason: AdapterReason) -> ConditionType:
    return BLAMES.get(reason, ConditionType.RESIDENT)
