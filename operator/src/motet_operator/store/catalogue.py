"""What the store knows, in memory and on disk: resolutions, artifacts, failures, bases, references.

Invariant: an artifact that is known has all its blobs, and a resolution that is known has its artifact. What is on
disk is read at the start and written with every change; whatever of it is lost is fetched anew.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from motet_api.identity import Digest
from motet_api.reasons import AdapterReason
from motet_api.wire import BaseDescription
from motet_operator.store.blobs import Blobs
from motet_operator.store.collect import Blob, Held, Plan, plan
from motet_operator.store.records import Artifact, Failure, Fit, RecordFiles, Resolution
from motet_operator.store.wanted import Wanted

log = logging.getLogger(__name__)

_MOST_BASES: Final = 4096
_TOUCH_SECONDS: Final = 3600.0


class Catalogue:
    """Everything by its key. `now` gives Unix seconds: ages outlive the process."""

    def __init__(self, folder: Path, blobs: Blobs, now: Callable[[], float], grace: float, keep: float) -> None:
        self._blobs = blobs
        self._now = now
        self._grace = grace
        self._keep = keep
        self._resolution_files = RecordFiles(folder / "resolutions")
        self._failure_files = RecordFiles(folder / "failures")
        self._artifact_files = RecordFiles(folder / "artifacts")
        self._base_files = RecordFiles(folder / "bases")
        self.resolutions: dict[Wanted, Resolution] = {}
        self.failures: dict[Wanted, Failure] = {}
        self.artifacts: dict[Digest, Artifact] = {}
        self.bases: dict[Digest, BaseDescription] = {}
        self.references: frozenset[Digest] | None = None
        self._used: dict[Digest, float] = {}
        self._named: dict[Digest, set[Wanted]] = {}
        self._owners: dict[str, set[Digest]] = {}

    def open(self) -> None:
        """Read what is on disk. Raises: OSError."""
        for artifact, used_at in self._artifact_files.read(Artifact):
            if all(file.sha256 in self._blobs for file in artifact.files):
                self._put_artifact(artifact, used_at)
            else:
                self._artifact_files.remove(artifact.digest)
        for resolution, _ in self._resolution_files.read(Resolution):
            if resolution.digest in self.artifacts:
                self._put_resolution(resolution)
            else:
                self._resolution_files.remove(resolution.wanted.key)
        for failure, _ in self._failure_files.read(Failure):
            self.failures[failure.wanted] = failure
        for base, _ in self._base_files.read(BaseDescription):
            self.bases[base.digest()] = base

    def add(self, resolution: Resolution, artifact: Artifact) -> None:
        """A source gave an artifact, which is verified: what was asked for is known, by its digest and revision too."""
        if artifact.digest not in self.artifacts:
            self._artifact_files.write(artifact.digest, artifact)
            self._put_artifact(artifact, self._now())
        pinned = resolution.wanted.pinned(artifact.digest)
        at_revision = pinned.model_copy(update={"revision": resolution.revision or pinned.revision})
        for wanted in {resolution.wanted, pinned, at_revision}:
            known = resolution.model_copy(update={"wanted": wanted})
            self._resolution_files.write(wanted.key, known)
            self._put_resolution(known)
            self.drop_failure(wanted)

    def fail(self, failure: Failure) -> None:
        """Something is not there. Only what waiting does not heal outlives the process."""
        self.failures[failure.wanted] = failure
        if not failure.reason.transient:
            self._failure_files.write(failure.wanted.key, failure)

    def drop_failure(self, wanted: Wanted) -> None:
        """It is there after all, or nobody wants it any more."""
        failure = self.failures.pop(wanted, None)
        if failure is not None and not failure.reason.transient:
            self._failure_files.remove(wanted.key)

    def drop_failures(self, reason: AdapterReason) -> None:
        """What was refused for this reason is asked for anew."""
        for failure in list(self.failures.values()):
            if failure.reason is reason:
                self.drop_failure(failure.wanted)

    def put_fit(self, digest: Digest, base: Digest, fit: Fit) -> None:
        """It is known whether an artifact fits a base."""
        if digest in self.artifacts:
            artifact = self.artifacts[digest]
            fits = {known: value for known, value in artifact.fits.items() if known in self.bases}
            self.artifacts[digest] = artifact.model_copy(update={"fits": fits | {base: fit}})
            self._artifact_files.write(digest, self.artifacts[digest])

    def put_base(self, base: BaseDescription) -> None:
        """What adapters are checked against. Of too many, the one put first is forgotten; it can be put again."""
        digest = base.digest()
        if digest in self.bases:
            return
        while len(self.bases) >= _MOST_BASES:
            oldest = next(iter(self.bases))
            del self.bases[oldest]
            self._base_files.remove(oldest)
        self._base_files.write(digest, base)
        self.bases[digest] = base

    def use(self, digest: Digest) -> None:
        """An artifact is asked for, or read."""
        now = self._now()
        if now - self._used[digest] > _TOUCH_SECONDS:
            self._artifact_files.touch(digest, now)
        self._used[digest] = now

    def use_blob(self, sha256: str) -> bool:
        """A blob is read. Returns whether it belongs to an artifact that is verified."""
        owners = self._owners.get(sha256, set())
        for digest in owners:
            self.use(digest)
        return bool(owners)

    def collect(self, missing: int = 0) -> Plan:
        """Delete what may be deleted: what nobody has used for long, or as much as is missing."""
        now, in_use = self._now(), self._blobs.in_use()
        blobs = {name: Blob(stat.size, stat.came_at, name in in_use) for name, stat in self._blobs.stats().items()}
        held = [
            Held(artifact.digest, frozenset(file.sha256 for file in artifact.files), self._used[artifact.digest])
            for artifact in self.artifacts.values()
        ]
        decided = plan(held, blobs, self.references, now, grace=self._grace, keep=self._keep, missing=missing)
        # Records first: if the process ends in between, a blob without a record is an orphan, and never the reverse.
        for digest in decided.artifacts:
            self._forget(digest)
        for name in decided.blobs:
            self._blobs.remove(name)
        if decided.artifacts or decided.blobs:
            log.info(
                "deleted %d artifacts and %d blobs: %s", len(decided.artifacts), len(decided.blobs), decided.reason
            )
        return decided

    def _put_artifact(self, artifact: Artifact, used_at: float) -> None:
        self.artifacts[artifact.digest] = artifact
        self._used[artifact.digest] = used_at
        for file in artifact.files:
            self._owners.setdefault(file.sha256, set()).add(artifact.digest)

    def _put_resolution(self, resolution: Resolution) -> None:
        self.resolutions[resolution.wanted] = resolution
        self._named.setdefault(resolution.digest, set()).add(resolution.wanted)

    def _forget(self, digest: Digest) -> None:
        for wanted in self._named.pop(digest, set()):
            # A source that has moved on means another artifact by now.
            if self.resolutions[wanted].digest == digest:
                self._resolution_files.remove(wanted.key)
                del self.resolutions[wanted]
        self._artifact_files.remove(digest)
        artifact = self.artifacts.pop(digest)
        del self._used[digest]
        for name in {file.sha256 for file in artifact.files}:
            self._owners[name].discard(digest)
            if not self._owners[name]:
                del self._owners[name]
