"""The jobs that compare adapters with bases: once for each pair, in the process that looks at files."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from motet_api.identity import ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, Digest
from motet_api.wire import BaseDescription
from motet_operator.store.blobs import Blobs
from motet_operator.store.catalogue import Catalogue
from motet_operator.store.errors import StoreError
from motet_operator.store.fair_queue import FairQueue
from motet_operator.store.jobs import Workers
from motet_operator.store.records import Fit

log = logging.getLogger(__name__)

Pair = tuple[Digest, Digest]
"""An adapter and the description of a base."""


class FitAdapter(Protocol):
    """Compares."""

    async def fit(self, digest: Digest, files: Mapping[str, Path], base: BaseDescription) -> Fit:
        """Whether an adapter fits a base. Raises: StoreError."""
        ...


class Fits:
    """One at a time, fair between namespaces."""

    def __init__(self, examiner: FitAdapter, blobs: Blobs, catalogue: Catalogue) -> None:
        self._examiner = examiner
        self._blobs = blobs
        self._catalogue = catalogue
        self._workers = Workers(FairQueue[Pair](1, 1), self._fit)

    def begin(self, digest: Digest, base: Digest, namespace: str) -> None:
        """Compare, for an object of a namespace."""
        self._workers.put((digest, base), namespace, "")

    async def run(self) -> None:
        """Work for ever."""
        await self._workers.run()

    async def _fit(self, pair: Pair, namespace: str) -> None:
        digest, base_digest = pair
        artifact, base = self._catalogue.artifacts.get(digest), self._catalogue.bases.get(base_digest)
        if artifact is None or base is None:
            return
        config, weights = artifact.sha256_of(ADAPTER_CONFIG_FILE), artifact.sha256_of(ADAPTER_WEIGHTS_FILE)
        try:
            with self._blobs.using(config), self._blobs.using(weights):
                files = {"config": self._blobs.path(config), "weights": self._blobs.path(weights)}
                fit = await self._examiner.fit(digest, files, base)
        except StoreError as error:
            # Asked again with the next query.
            log.warning("%s of namespace %s against base %s: %s", digest, namespace, base_digest, error)
            return
        except Exception:  # the job's edge: the next query asks again
            log.exception("%s of namespace %s against base %s", digest, namespace, base_digest)
            return
        self._catalogue.put_fit(digest, base_digest, fit)
