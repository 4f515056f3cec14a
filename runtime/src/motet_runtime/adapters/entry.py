"""What is known of one desired adapter on this pod: what it should be, how far it is, and what went wrong."""

import asyncio
from dataclasses import dataclass, field
from typing import Final

from motet_api.artifact.adapter import Artifact
from motet_api.loraadapter import Residency as ResidencyClass
from motet_api.reasons import AdapterReason
from motet_api.wire import AdapterReport, DesiredAdapter

PATIENCE: Final = 4
"""Attempts (7 s of waiting in all) that a pod which was never ready gives a failure that time may heal."""
_FIRST_RETRY: Final = 1.0
_LAST_RETRY: Final = 30.0
_RECHECK: Final = 60.0
"""Bytes that were wrong are looked at again this often: somebody may have put the right ones in their place."""
_PLACED: Final = (AdapterReason.RESIDENT, AdapterReason.DRAINING)
_ORDER: Final = (ResidencyClass.REQUIRED, ResidencyClass.ON_DEMAND, ResidencyClass.PREFERRED)
"""Who is loaded first. On demand means that a request waits for it now; nobody waits for what is preferred."""


@dataclass(slots=True)
class Entry:
    """One adapter. `asked`: a request wants it that is on demand. `decided` is set when an attempt has an outcome."""

    desired: DesiredAdapter
    reason: AdapterReason = AdapterReason.LOADING
    message: str = ""
    artifact: Artifact | None = None
    in_flight: int = 0
    attempts: int = 0
    due: float = 0.0
    load_seconds: float | None = None
    asked: bool = False
    decided: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def on_demand(self) -> bool:
        """Whether it is loaded only when it is asked for."""
        return self.desired.residency is ResidencyClass.ON_DEMAND

    @property
    def placed(self) -> bool:
        """Whether its weights are here."""
        return self.reason in _PLACED

    @property
    def drained(self) -> bool:
        """Whether its weights can go."""
        return self.reason is AdapterReason.DRAINING and self.in_flight == 0

    @property
    def to_load(self) -> bool:
        """Whether it should be here and is not."""
        return not self.placed and (self.asked or not self.on_demand)

    @property
    def urgency(self) -> tuple[int, int, float]:
        """What is loaded first has the smallest."""
        return _ORDER.index(self.desired.residency), self.attempts, self.due

    @property
    def settled(self) -> bool:
        """Whether it has arrived, or failed: for good, or `PATIENCE` times. What other pods serve must arrive."""
        if self.reason.failed and not self.desired.proven:
            return not self.reason.transient or self.attempts >= PATIENCE
        return self.reason is AdapterReason.RESIDENT

    def is_what(self, wanted: DesiredAdapter) -> bool:
        """Whether this is the adapter that `wanted` describes.

        It is if it is from the same place and has the digest, where one is demanded: a digest that names the very bytes
        that were loaded changes nothing, whether it was known before or not. How it is fetched, and how urgently, is no
        part of what it is.
        """
        digests = [self.desired.digest] if self.artifact is None else [None, self.artifact.digest]
        return wanted.uri == self.desired.uri and wanted.digest in digests

    def failed(self, reason: AdapterReason, message: str, now: float) -> None:
        """Take in that an attempt failed, and when the next is due."""
        self.reason, self.message = reason, message
        backoff = min(_FIRST_RETRY * 2.0 ** min(self.attempts - 1, 16), _LAST_RETRY)
        self.due = now + (backoff if reason.transient else _RECHECK)
        # What is on demand is tried again when somebody asks again.
        self.asked = False
        self.decided.set()

    def arrived(self, artifact: Artifact, seconds: float) -> None:
        """Take in that it is here."""
        self.artifact, self.load_seconds = artifact, seconds
        self.reason, self.message = AdapterReason.RESIDENT, ""
        self.decided.set()

    def report(self) -> AdapterReport:
        """What is to be said of it."""
        artifact = self.artifact
        return AdapterReport(
            id=self.desired.id,
            reason=self.reason,
            message=self.message,
            uri=self.desired.uri,
            desired_digest=self.desired.digest,
            residency=self.desired.residency,
            proven=self.desired.proven,
            digest=artifact and artifact.digest,
            rank=artifact and artifact.rank,
            size_bytes=artifact and artifact.size_bytes,
            held_bytes=artifact and artifact.held_bytes,
            target_modules=artifact.target_names if artifact else [],
        )
