"""The store's metrics; every name is here."""

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge

from motet_operator.store.fair_queue import FairQueue


class StoreMetrics:
    """Counts jobs, bytes and blobs."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._jobs = Gauge("motet_store_jobs", "Artifacts that are fetched, by state.", ["state"], registry=registry)
        self._ended = Counter("motet_store_jobs_ended", "Jobs by result.", ["result"], registry=registry)
        self._failures = Counter("motet_store_failures", "Failed jobs by reason.", ["reason"], registry=registry)
        self._fetched = Counter("motet_store_fetched_bytes", "Bytes read from sources.", registry=registry)
        self._disk = Gauge("motet_store_disk_bytes", "Bytes of blobs, partial files and archives.", registry=registry)
        self._limit = Gauge("motet_store_disk_limit_bytes", "Bytes that they may have.", registry=registry)
        self._blobs = Counter("motet_store_blob_requests", "Requests for blobs by status.", ["code"], registry=registry)
        self._policy = Gauge(
            "motet_store_policy_refused",
            "1 while the policy file holds something that is refused, and an older policy is in force.",
            registry=registry,
        )

    def measure_jobs(self, queue: FairQueue[Any]) -> None:
        """Take the numbers of jobs from here, whenever somebody reads them."""
        self._jobs.labels("waiting").set_function(lambda: queue.waiting)
        self._jobs.labels("running").set_function(lambda: queue.running)

    def measure_disk(self, used: Callable[[], int], limit: int) -> None:
        """Take the bytes in use from here."""
        self._disk.set_function(used)
        self._limit.set(limit)

    def measure_policy(self, refused: Callable[[], bool]) -> None:
        """Take from here whether the policy file is refused."""
        self._policy.set_function(refused)

    def job_ended(self, result: str, reason: str = "") -> None:
        """A job ended: verified, listed (nobody may have so many bytes) or failed."""
        self._ended.labels(result).inc()
        if reason:
            self._failures.labels(reason).inc()

    def fetched(self, size: int) -> None:
        """Bytes came from a source."""
        self._fetched.inc(size)

    def blob_asked(self, code: int) -> None:
        """A request for a blob was answered."""
        self._blobs.labels(str(code)).inc()
