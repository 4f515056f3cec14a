"""What the HTTP routes work on: the base once it is loaded, the adapters, the lifecycle, the metrics."""

from dataclasses import dataclass

from motet_api.errors import ErrorCode
from motet_api.identity import AdapterId
from motet_api.names import BASE_MODEL_ALIAS
from motet_api.wire import AdaptersReport
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


class Service:
    """The state that the routes share. Used from the event loop only."""

    def __init__(self, settings: Settings, residency: Residency, lifecycle: Lifecycle, metrics: RuntimeMetrics) -> None:
        self.settings = settings
        self.residency = residency
        self.lifecycle = lifecycle
        self.metrics = metrics
        self._base: Base | None = None
        self._was_ready = False

    def base_loaded(self, base: Base) -> None:
        """The base is in memory: requests can be served."""
        self._base = base

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

        A pod that was ready stays so while further adapters load: those that it holds serve meanwhile.
        """
        if self.lifecycle.draining:
            return "draining"
        if self._base is None:
            return "the base model is loading"
        if not self.residency.desired_known:
            return "no desired adapters have been sent yet"
        if not self._was_ready and not self.residency.settled():
            waiting = [f"{row.id} ({row.reason})" for row in self.residency.report() if row.reason != "Resident"]
            return f"adapters are not resident yet: {', '.join(waiting)}"
        self._was_ready = True
        return None

    def resolve(self, name: str | None) -> AdapterId | None:
        """The adapter that a request names; None for the base.

        Raises:
            RequestError: it is not served here.
        """
        if not name or name in (BASE_MODEL_ALIAS, self.settings.model_name):
            return None
        return self.residency.resolve(name)

    def report(self) -> AdaptersReport:
        """What this pod says of itself to the operator and the gateway."""
        gauges = self._base.engine.gauges if self._base else None
        return AdaptersReport(
            model=self.settings.model_name,
            base_loaded=self._base is not None,
            desired_known=self.residency.desired_known,
            draining=self.lifecycle.draining,
            max_batch_size=self.settings.engine.max_batch_size,
            running=gauges.running if gauges else 0,
            waiting=gauges.waiting if gauges else 0,
            adapters=self.residency.report(),
        )
