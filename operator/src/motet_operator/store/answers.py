"""What is known of the artifacts that are asked about; what is not known is begun.

Known ones are answered from memory: nothing here waits, reads a file or asks anybody.
"""

from collections.abc import Callable
from typing import Final

from motet_api.identity import Digest, manifest_text
from motet_api.reasons import AdapterReason
from motet_api.store import ArtifactKind, ArtifactReport, ArtifactRequest, ArtifactState, Refusal
from motet_operator.store import backoff, signature
from motet_operator.store.catalogue import Catalogue
from motet_operator.store.errors import StoreError
from motet_operator.store.fits import Fits
from motet_operator.store.jobs import Pulls
from motet_operator.store.policy_file import PolicyFile
from motet_operator.store.pull import shown
from motet_operator.store.records import Artifact, Resolution
from motet_operator.store.signature import PublicKey
from motet_operator.store.wanted import Wanted

_MOST_CHECKED: Final = 100_000

Compatibility = tuple[bool | None, Refusal | None, int | None]
"""Whether it fits, why not, and what it takes there."""


class Answers:
    """Answers questions. `fresh_seconds` is how long a source that was asked without a digest is not asked again."""

    def __init__(
        self,
        catalogue: Catalogue,
        pulls: Pulls,
        fits: Fits,
        policy: PolicyFile,
        now: Callable[[], float],
        fresh_seconds: float,
    ) -> None:
        self._catalogue = catalogue
        self._pulls = pulls
        self._fits = fits
        self._policy = policy
        self._now = now
        self._fresh_seconds = fresh_seconds
        self._checked: dict[tuple[str, Digest, str, int], Refusal | None] = {}

    def answer(self, request: ArtifactRequest) -> ArtifactReport:
        """What is known of one artifact."""
        try:
            self._policy.check_source(request.namespace, request.uri)
        except StoreError as error:
            return _failed(error.reason, error.message, request.digest)
        wanted = Wanted.of(request)
        resolution = self._catalogue.resolutions.get(wanted)
        if resolution is not None and (wanted.digest or self._now() - resolution.at < self._fresh_seconds):
            size = self._catalogue.artifacts[resolution.digest].stored_bytes
            return _listed(size, request) if _is_beyond(size, request) else self._known(request, wanted, resolution)
        listed = self._pulls.listed(wanted)
        if listed and self._now() - listed.at < self._fresh_seconds and _is_beyond(listed.size, request):
            return _listed(listed.size, request)
        failure = self._catalogue.failures.get(wanted)
        progress = self._pulls.progress(wanted)
        if failure is not None and (progress is None or not failure.reason.transient or not progress.fetched):
            # A retry that has not got anywhere yet is no news.
            self._pulls.asked(wanted, request.namespace, request.max_bytes)
            return _failed(failure.reason, failure.message, request.digest)
        if progress is None:
            self._pulls.begin(wanted, request.namespace, request.max_bytes)
            return ArtifactReport(state=ArtifactState.RESOLVING, digest=request.digest)
        self._pulls.asked(wanted, request.namespace, request.max_bytes)
        return ArtifactReport(
            state=progress.state,
            digest=request.digest,
            revision=progress.revision,
            size_bytes=progress.size,
            fetched_bytes=progress.fetched,
        )

    def _known(self, request: ArtifactRequest, wanted: Wanted, resolution: Resolution) -> ArtifactReport:
        artifact = self._catalogue.artifacts[resolution.digest]
        self._catalogue.use(artifact.digest)
        refusal = self._unsigned(request, resolution, artifact)
        if refusal is not None:
            # A signature may be laid beside the files at any time.
            if self._now() - resolution.at > backoff.SIGNATURE_SECONDS and wanted not in self._catalogue.failures:
                self._pulls.begin(wanted, request.namespace, request.max_bytes)
            self._pulls.asked(wanted, request.namespace, request.max_bytes)
            return _failed(refusal.reason, refusal.message, artifact.digest)
        compatible, mismatch, held_bytes = self._compatibility(request, artifact)
        # Not validated again: there are thousands in one answer.
        return ArtifactReport.model_construct(
            state=ArtifactState.VERIFIED,
            failure=None,
            digest=artifact.digest,
            revision=resolution.revision,
            size_bytes=artifact.stored_bytes,
            fetched_bytes=artifact.stored_bytes,
            rank=artifact.facts.rank,
            target_modules=artifact.facts.target_modules,
            held_bytes=held_bytes,
            compatible=compatible,
            mismatch=mismatch,
        )

    def _compatibility(self, request: ArtifactRequest, artifact: Artifact) -> Compatibility:
        rank = artifact.facts.rank or 0
        if request.max_rank is not None and rank > request.max_rank:
            message = f"rank {rank} is above spec.adapters.maxRank {request.max_rank} of the ModelDeployment"
            return False, Refusal(reason=AdapterReason.RANK_TOO_LARGE, message=message), None
        base = request.base_digest
        if base is None or base not in self._catalogue.bases or artifact.kind is not ArtifactKind.ADAPTER:
            return None, None, None
        fit = artifact.fits.get(base)
        if fit is None:
            self._fits.begin(artifact.digest, base, request.namespace)
            return None, None, None
        if fit.reason is not None:
            return False, Refusal(reason=fit.reason, message=fit.message), None
        return True, None, fit.held_bytes

    def _unsigned(self, request: ArtifactRequest, resolution: Resolution, artifact: Artifact) -> Refusal | None:
        """Why the namespace's policy does not take its signature."""
        keys = self._policy.signers(request.namespace)
        if not keys or artifact.kind is not ArtifactKind.ADAPTER:
            return None
        question = (resolution.signature, artifact.digest, request.namespace, self._policy.version)
        if question not in self._checked:
            if len(self._checked) >= _MOST_CHECKED:
                self._checked.clear()
            self._checked[question] = _signature_refusal(resolution.signature, artifact, keys)
        return self._checked[question]


def _signature_refusal(text: str, artifact: Artifact, keys: tuple[PublicKey, ...]) -> Refusal | None:
    manifest = manifest_text({file.name: file.sha256 for file in artifact.files})
    try:
        signature.check(text, manifest, keys)
    except StoreError as error:
        return Refusal(reason=error.reason, message=error.message)
    return None


def _is_beyond(size: int | None, request: ArtifactRequest) -> bool:
    return request.max_bytes is not None and (size is None or size > request.max_bytes)


def _listed(size: int | None, request: ArtifactRequest) -> ArtifactReport:
    if size is None:
        message = (
            f"{shown(request.uri)} does not say how large its files are, and the bytes of namespace "
            f"{request.namespace} are limited (maxBytes): serve them with a Content-Length, or as an archive"
        )
        return _failed(AdapterReason.TOO_LARGE, message, request.digest)
    return ArtifactReport(state=ArtifactState.LISTED, digest=request.digest, size_bytes=size)


def _failed(reason: AdapterReason, message: str, digest: Digest | None) -> ArtifactReport:
    return ArtifactReport(state=ArtifactState.FAILED, failure=Refusal(reason=reason, message=message), digest=digest)
