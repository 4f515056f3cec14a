"""What the adapter store knows of the versions that it fetches: asked as seldom as can be.

Invariant: one question a pass at most, for all versions that are due, and none in a steady state but every few minutes.
What was answered is kept for the passes in between, so a version has an answer whenever it ever had one. It is lost at
a restart, and asked for anew.

    the last answer                         asked again after
    ---------------                         -----------------
    none, or the store is at it             the next pass
    verified, and not yet checked           CHECKING_SECONDS: against the base that pods have
    verified                                SETTLED_SECONDS; WORRIED_SECONDS while a pod cannot fetch it
    failed in a way that time may heal      WORRIED_SECONDS
    failed for good                         REFUSED_SECONDS
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from motet_api.identity import Digest
from motet_api.store import ArtifactReport, ArtifactRequest, ArtifactsAnswer, ArtifactsQuery, ArtifactState
from motet_api.wire import BaseDescription
from motet_operator.errors import SilentPodError, SilentStoreError
from motet_operator.keys import ModelKey, ObjectName

log = logging.getLogger(__name__)

SETTLED_SECONDS: Final = 300.0
REFUSED_SECONDS: Final = 60.0
WORRIED_SECONDS: Final = 5.0
CHECKING_SECONDS: Final = 0.4

VersionKey = tuple[ObjectName, str]
"""Adapter and version."""


class StoreAsker(Protocol):
    """Asks the adapter store."""

    async def query(self, query: ArtifactsQuery) -> ArtifactsAnswer:
        """One report for each artifact. Raises: SilentStoreError."""
        ...

    async def put_base(self, digest: Digest, base: BaseDescription) -> None:
        """Say what a base looks like. Raises: SilentStoreError."""
        ...


class BaseAsker(Protocol):
    """Asks a pod what its base looks like."""

    async def base(self, ip: str) -> BaseDescription:
        """The base. Raises: SilentPodError."""
        ...


@dataclass(frozen=True, slots=True)
class Wish:
    """A version that the store should know of. `worried` says that a pod could not fetch what the store had."""

    version: VersionKey
    request: ArtifactRequest
    worried: bool = False


@dataclass(frozen=True, slots=True)
class Answers:
    """Reports by version, the last ones known; `silence` says why the store could not be asked, if it could not."""

    reports: Mapping[VersionKey, ArtifactReport] = field(default_factory=dict)
    silence: str = ""


@dataclass(frozen=True, slots=True)
class _Known:
    request: ArtifactRequest
    report: ArtifactReport
    asked: float


class ArtifactBook:
    """Answers of the store, by ModelDeployment. `clock` is monotonic seconds."""

    def __init__(self, store: StoreAsker, pods: BaseAsker, clock: Callable[[], float]) -> None:
        self._store = store
        self._pods = pods
        self._clock = clock
        self._known: dict[ModelKey, dict[VersionKey, _Known]] = {}

    async def ask(self, key: ModelKey, wishes: Sequence[Wish], base_ips: Mapping[Digest, str]) -> Answers:
        """What is known of the versions at home in one model.

        Args:
            base_ips: a pod for each base digest in the requests, that can say what the base looks like.
        """
        known = self._known.get(key, {})
        kept = {wish.version: found for wish in wishes if (found := self._kept(known, wish)) is not None}
        due = [wish for wish in wishes if self._is_due(wish, kept.get(wish.version))]
        silence = ""
        try:
            unknown = await self._ask(due, kept)
            if unknown and await self._describe(unknown, base_ips):
                await self._ask([wish for wish in due if wish.request.base_digest in unknown], kept)
        except SilentStoreError as error:
            silence = str(error)
            log.warning("%s: the adapter store: %s", key, error)
        if kept:
            self._known[key] = kept
        else:
            self._known.pop(key, None)
        return Answers({version: found.report for version, found in kept.items()}, silence)

    def _kept(self, known: Mapping[VersionKey, _Known], wish: Wish) -> _Known | None:
        """The last answer, if it was to the same question: that what it found is recorded makes no other of it."""
        found = known.get(wish.version)
        if found is None:
            return None
        recorded = {
            name: asked
            for name in ("digest", "revision")
            if (asked := getattr(wish.request, name)) and asked == getattr(found.report, name)
        }
        return found if found.request.model_copy(update=recorded) == wish.request else None

    def _is_due(self, wish: Wish, found: _Known | None) -> bool:
        return found is None or self._clock() - found.asked >= _patience(found.report, wish)

    async def _ask(self, due: Sequence[Wish], kept: dict[VersionKey, _Known]) -> set[Digest]:
        """Ask, and keep what is answered; returns bases that the store does not know."""
        if not due:
            return set()
        answer = await self._store.query(ArtifactsQuery(artifacts=[wish.request for wish in due]))
        now = self._clock()
        for wish, report in zip(due, answer.artifacts, strict=True):
            kept[wish.version] = _Known(wish.request, report, now)
        return set(answer.unknown_bases)

    async def _describe(self, unknown: set[Digest], base_ips: Mapping[Digest, str]) -> bool:
        """Tell the store what bases look like; whether any was told. Raises: SilentStoreError."""
        told = False
        for digest in sorted(unknown & set(base_ips)):
            try:
                base = await self._pods.base(base_ips[digest])
            except SilentPodError as error:
                log.warning("the pod at %s does not say what its base looks like: %s", base_ips[digest], error)
                continue
            if base.digest() == digest:
                await self._store.put_base(digest, base)
                told = True
        return told


def _patience(report: ArtifactReport, wish: Wish) -> float:
    """For how many seconds an answer is good."""
    match report.state:
        case ArtifactState.VERIFIED:
            checked = report.compatible is not None or wish.request.base_digest is None
            return (WORRIED_SECONDS if wish.worried else SETTLED_SECONDS) if checked else CHECKING_SECONDS
        case ArtifactState.FAILED:
            transient = report.failure is None or report.failure.reason.transient
            return WORRIED_SECONDS if transient else REFUSED_SECONDS
        case _:
            return 0.0
