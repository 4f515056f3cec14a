"""The store's parts, put together: what main starts and what tests start with other edges."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

from motet_api.reasons import AdapterReason
from motet_operator.store.answers import Answers
from motet_operator.store.blobs import Blobs
from motet_operator.store.catalogue import Catalogue
from motet_operator.store.disk import Disk
from motet_operator.store.download import Downloads
from motet_operator.store.examiner import Examiner
from motet_operator.store.fits import Fits
from motet_operator.store.jobs import Pulls
from motet_operator.store.metrics import StoreMetrics
from motet_operator.store.policy_file import PolicyFile
from motet_operator.store.pull import OpenSource, Puller
from motet_operator.store.routes import AdminRoutes, ReadRoutes
from motet_operator.store.secret_reader import SecretReader
from motet_operator.store.sources.contract import Limits

_POLICY_SECONDS: Final = 5.0
_COLLECT_SECONDS: Final = 300.0
_PARTIAL_SECONDS: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """What the installation decides.

    `grace_seconds` is what everything stays, `keep_seconds` what an artifact stays that nobody names, `fresh_seconds`
    how long a source that was asked without a digest is not asked again.
    """

    folder: Path
    limits: Limits = field(default_factory=Limits)
    jobs: int = 16
    jobs_per_host: int = 4
    grace_seconds: float = 3600.0
    keep_seconds: float = 7 * 86_400.0
    fresh_seconds: float = 600.0


class Store:
    """One store. `open` it, then `run` it; the routes answer in between and after."""

    def __init__(
        self,
        settings: StoreSettings,
        disk: Disk,
        sources: OpenSource,
        secrets: SecretReader,
        policy: PolicyFile,
        metrics: StoreMetrics,
        now: Callable[[], float],
        jitter: random.Random,
    ) -> None:
        self.blobs = Blobs(settings.folder, disk)
        self.catalogue = Catalogue(
            settings.folder, self.blobs, now, grace=settings.grace_seconds, keep=settings.keep_seconds
        )
        disk.make_room = self._make_room
        # One for whole files, one for comparisons: a large base does not keep the small questions waiting.
        self._examiners = (Examiner(), Examiner())
        puller = Puller(
            sources,
            secrets,
            Downloads(self.blobs, settings.limits, metrics.fetched),
            self.blobs,
            self.catalogue,
            self._examiners[0],
            settings.limits,
            lambda namespace: policy.current.of(namespace).endpoints,
            now,
        )
        self.pulls = Pulls(puller, self.catalogue, metrics, now, settings.jobs, settings.jobs_per_host, jitter)
        self._fits = Fits(self._examiners[1], self.blobs, self.catalogue)
        self._policy = policy
        self._now = now
        answers = Answers(self.catalogue, self.pulls, self._fits, policy, now, settings.fresh_seconds)
        self.reads = ReadRoutes(self.catalogue, self.blobs, metrics)
        self.admin = AdminRoutes(self.catalogue, answers)
        metrics.measure_disk(lambda: disk.used, disk.limit)
        metrics.measure_policy(lambda: policy.broken)

    def open(self) -> None:
        """Read what is on disk. Blocks. Raises: OSError."""
        self.blobs.open()
        self.catalogue.open()

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.pulls.run())
                group.create_task(self._fits.run())
                group.create_task(self._follow_policy())
                group.create_task(self._clean())
        finally:
            for examiner in self._examiners:
                await examiner.close()

    async def _follow_policy(self) -> NoReturn:
        while True:
            await asyncio.sleep(_POLICY_SECONDS)
            if self._policy.refresh():
                self.catalogue.drop_failures(AdapterReason.SOURCE_NOT_ALLOWED)

    async def _clean(self) -> NoReturn:
        while True:
            await asyncio.sleep(_COLLECT_SECONDS)
            self.catalogue.collect()
            self.blobs.drop_partials(self._now() - _PARTIAL_SECONDS)

    def _make_room(self, missing: int) -> None:
        self.catalogue.collect(missing)
