"""One artifact from its source to the catalogue: list, select, fetch, compare, verify, record."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from motet_api.identity import (
    ADAPTER_CONFIG_FILE,
    ADAPTER_WEIGHTS_FILE,
    SIGNATURE_FILE,
    Digest,
    files_digest,
    manifest_digest,
)
from motet_api.reasons import AdapterReason
from motet_api.store import ArtifactFile, ArtifactKind, ArtifactState
from motet_operator.store.blobs import Blobs
from motet_operator.store.catalogue import Catalogue
from motet_operator.store.download import Downloads, Origin
from motet_operator.store.errors import BeyondBoundsError, StoreError
from motet_operator.store.records import Artifact, Facts, FetchedFile, Resolution
from motet_operator.store.secret_reader import SecretReader
from motet_operator.store.selection import select
from motet_operator.store.sources.contract import Limits, RemoteFile, Source, SourceRef
from motet_operator.store.wanted import Wanted


class OpenSource(Protocol):
    """Knows the sources by scheme."""

    def open_source(self, uri: str) -> Source:
        """The source that a URI is for. Raises: SourceError."""
        ...


class Examine(Protocol):
    """Looks at an artifact's files."""

    async def examine(self, kind: ArtifactKind, digest: Digest, files: Mapping[str, Path]) -> Facts:
        """What they say. Raises: StoreError."""
        ...


@dataclass(slots=True)
class Progress:
    """How far a job is. `size` is unknown as long as a source does not say it."""

    state: ArtifactState = ArtifactState.RESOLVING
    revision: str = ""
    size: int | None = None
    fetched: int = 0


class Puller:
    """Does the jobs."""

    def __init__(
        self,
        sources: OpenSource,
        secrets: SecretReader,
        downloads: Downloads,
        blobs: Blobs,
        catalogue: Catalogue,
        examiner: Examine,
        limits: Limits,
        s3_endpoints: Callable[[str], tuple[str, ...]],
        now: Callable[[], float],
    ) -> None:
        """`s3_endpoints` are those that a Secret of a namespace may name."""
        self._sources = sources
        self._secrets = secrets
        self._downloads = downloads
        self._blobs = blobs
        self._catalogue = catalogue
        self._examiner = examiner
        self._limits = limits
        self._s3_endpoints = s3_endpoints
        self._now = now

    async def pull(self, wanted: Wanted, progress: Progress, bound: Callable[[], int | None]) -> None:
        """Make what is wanted known.

        Args:
            bound: the bytes that those who ask for it by now may have at most; None for any number.

        Raises:
            BeyondBoundsError: it has more; nothing of it was fetched, but an archive, to see what is in it.
            SourceError: the source does not give it.
            StoreError: it is not what it must be, or there is no room.
            OSError: the disk does not do what it should.
        """
        at = self._now()
        credentials = await self._secrets.read(wanted.namespace, wanted.secret_name) if wanted.secret_name else {}
        source = self._sources.open_source(wanted.uri)
        ref = SourceRef(wanted.uri, wanted.revision, self._s3_endpoints(wanted.namespace))
        listing = await source.list(ref, credentials)
        try:
            progress.revision = listing.revision
            chosen = select(wanted.kind, listing, shown(wanted.uri))
            _check_bound(chosen, bound())
            with ExitStack() as uses:
                fetched = await self._fetch(Origin(source, ref, listing, credentials), chosen, wanted, progress, uses)
                artifact = await self._verified(wanted, fetched, progress)
                resolution = Resolution(
                    wanted=wanted,
                    digest=artifact.digest,
                    revision=listing.revision,
                    files=fetched,
                    signature=self._signature(fetched),
                    at=at,
                )
                self._catalogue.add(resolution, artifact)
        finally:
            await source.release(listing)

    async def _fetch(
        self, origin: Origin, chosen: tuple[RemoteFile, ...], wanted: Wanted, progress: Progress, uses: ExitStack
    ) -> list[FetchedFile]:
        """Every file, one after the other; those that this source gave before and has not changed are there."""
        sizes = [file.size for file in chosen]
        progress.size = sum(size for size in sizes if size is not None) if None not in sizes else None
        progress.state = ArtifactState.FETCHING
        before = self._catalogue.resolutions.get(wanted) or self._catalogue.resolutions.get(wanted.pinned(None))
        known = {(file.name, file.identity): file for file in before.files} if before else {}
        fetched: list[FetchedFile] = []
        for file in chosen:
            done = sum(one.size for one in fetched)

            def so_far(size: int, done: int = done) -> None:
                progress.fetched = done + size

            there = known.get((file.name, file.identity))
            if there is None or there.sha256 not in self._blobs or there.size != (file.size or there.size):
                there = await self._downloads.fetch(
                    origin, file, wanted.namespace, self._limits.max_total_bytes - done, so_far
                )
            # Between here and the end of the download nothing waits, so nobody can have deleted it.
            uses.enter_context(self._blobs.using(there.sha256))
            fetched.append(there)
            so_far(there.size)
        return fetched

    async def _verified(self, wanted: Wanted, fetched: list[FetchedFile], progress: Progress) -> Artifact:
        """The artifact that the files make. Raises: StoreError unless it is the one that is wanted, and sound."""
        progress.state = ArtifactState.VERIFYING
        files = [file for file in fetched if file.name != SIGNATURE_FILE]
        sums = {file.name: file.sha256 for file in files}
        adapter = wanted.kind is ArtifactKind.ADAPTER
        digest = manifest_digest(sums) if adapter else files_digest(sums)
        if wanted.digest not in (None, digest):
            message = f"the files of {shown(wanted.uri)} have digest {digest}, and {wanted.digest} is wanted"
            raise StoreError(AdapterReason.DIGEST_MISMATCH, message)
        known = self._catalogue.artifacts.get(digest)
        if known is not None:
            return known
        paths = {name: self._blobs.path(sha256) for name, sha256 in sums.items()}
        if adapter:
            paths = {"config": paths[ADAPTER_CONFIG_FILE], "weights": paths[ADAPTER_WEIGHTS_FILE]}
        facts = await self._examiner.examine(wanted.kind, digest, paths)
        listed = [ArtifactFile(name=file.name, sha256=file.sha256, size=file.size) for file in files]
        return Artifact(digest=digest, kind=wanted.kind, files=listed, facts=facts)

    def _signature(self, fetched: list[FetchedFile]) -> str:
        for file in fetched:
            if file.name == SIGNATURE_FILE:
                return self._blobs.path(file.sha256).read_text(errors="replace")
        return ""


def _check_bound(chosen: tuple[RemoteFile, ...], bound: int | None) -> None:
    """By what the source says of the sizes, which no download exceeds. The signature is not part of the artifact."""
    sizes = [file.size for file in chosen if file.name != SIGNATURE_FILE]
    size = sum(size for size in sizes if size is not None) if None not in sizes else None
    if bound is not None and (size is None or size > bound):
        raise BeyondBoundsError(size)


def shown(uri: str) -> str:
    """A URI as messages may show it: credentials in front of the host and signatures in the query are left out."""
    plain = uri.partition("?")[0].partition("#")[0]
    scheme, separator, rest = plain.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"
