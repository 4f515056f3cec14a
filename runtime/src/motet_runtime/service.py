"""What the HTTP routes work on: the base once it is loaded, the adapters, the lifecycle, the metrics."""

from dataclasses import dataclass

from motet_api.errors import ErrorCode
from motet_api.identity import AdapterId, Digest
from motet_api.names import BASE_MODEL_ALIAS
from motet_api.wire import AdaptersReport, BaseDescription
from motet_runtime.adapters.library import AdapterLibrary
from motet_runtime.adapters.residency import Residency
from motet_runtime.engine.thread import EngineThread
from motet_runtime.errors import RequestError
from motet_runtime.generation import Generator
from motet_runtime.lifecycle import Lifecycle
from motet_runtime.metrics import RuntimeMetrics
from motet_runtime.settings import Settings


@dataclass(frozen=True, slots=True)
class Base:
    """The loaded base model."""

    generator: Generator
    engine: EngineThread
    dtype: str
    device: str
    max_model_len: int
    description: BaseDescription
    library: AdapterLibrary


class Service:
    """The state that the routes share. Used from the event loop only."""

    def __init__(self, settings: Settings, residency: Residency, lifecycle: Lifecycle, metrics: RuntimeMetrics) -> None:
        self.settings = settings
        self.residency = residency
        self.lifecycle = lifecycle
        self.metrics = metrics
        self._base: Base | None = None
        self._base_digest: Digest | None = None
        self._was_ready = False

    def base_loaded(self, base: Base) -> None:
        """The base is in memory: requests can be served."""
        self._base = base
        self._base_digest = base.description.digest()

    @property
    def base(self) -> Base:
        """The base.

        Raises:
            RequestError: it is still loading.
        """
        if self._base is None:
            raise RequestError(ErrorCode.NO_READY_POD, "the base model is still loading: retry in a few seconds")
        return self._base

    def not_ready_because(self) -> str | None:
        """What keeps the pod from being ready; None when it is.

        Of the adapters only the required ones count. A pod that was ready stays so while further ones load: those that
        it holds serve meanwhile.
        """
        if self.lifecycle.draining:
            return "draining"
        if self._base is None:
            return "the base model is loading"
        if not self.residency.desired_known:
            return "no desired adapters have been sent yet"
        if not self._was_ready and not self.residency.settled():
            waiting = [f"{row.id} ({row.reason})" for row in self.residency.awaited()]
            return f"adapters are not resident yet: {', '.join(waiting)}"
        self._was_ready = True
        return None

    async def resolve(self, name: str | None) -> AdapterId | None:
        """The adapter that a request names; None for the base. One that is on demand is loaded first.

        Raises:
            RequestError: it is not served here.
        """
        if not name or name in (BASE_MODEL_ALIAS, self.settings.model_name):
            return None
        # Waiting for an adapter is being in flight: a pod that drains does not end meanwhile.
        with self.lifecycle.request():
            return await self.residency.resolve(name)

    def report(self) -> AdaptersReport:
        """What this pod says of itself to the operator and the gateway."""
        base = self._base
        return AdaptersReport(
            model=self.settings.model_name,
            base_loaded=base is not None,
            desired_known=self.residency.desired_known,
            draining=self.lifecycle.draining,
            max_batch_size=self.settings.engine.max_batch_size,
            base_digest=self._base_digest,
            adapter_bytes=self._adapter_bytes() if base else None,
            adapters=self.residency.report(),
        )

    def adapter_bytes_used(self) -> int:
        """What the resident adapters take of the bytes that the report promises."""
        return self._base.library.used_bytes if self._base else 0

    def _adapter_bytes(self) -> int:
        """Bytes of adapters that can be answered for without fetching one again.

        Host memory holds what is on disk too, so that the larger of the two counts, not both.
        """
        return max(self.settings.adapter_host_bytes, self.settings.adapter_disk_bytes)
