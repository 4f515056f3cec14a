"""The agent's state: what the engine is seen to do, what it should hold, and what is to be said of both."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn, Protocol

from motet_api.identity import AdapterId
from motet_api.loraadapter import Residency as ResidencyClass
from motet_api.wire import AdaptersReport, BaseDescription, DesiredAdapters
from motet_runtime.adapters.residency import Residency
from motet_runtime.agent.engine_client import EngineSilentError
from motet_runtime.lifecycle import Lifecycle

_log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0


class SeenEngine(Protocol):
    """What is looked at."""

    async def adapters(self) -> dict[AdapterId, str]:
        """The folder of each adapter that it has. Raises: EngineSilentError."""
        ...


class Sidecar:
    """Used from the event loop only. `max_batch_size`: requests that the engine runs at once."""

    def __init__(
        self,
        model_name: str,
        base: BaseDescription | None,
        max_batch_size: int,
        engine: SeenEngine,
        residency: Residency,
        lifecycle: Lifecycle,
    ) -> None:
        self.base = base
        self.residency = residency
        self.lifecycle = lifecycle
        self._model_name = model_name
        self._max_batch_size = max_batch_size
        self._engine = engine
        self._answers = False
        self._silence = "it has not been asked yet"
        self._was_ready = False

    def want(self, document: DesiredAdapters) -> None:
        """Take in the desired document.

        What should be loaded by the first request is loaded now: requests go to the engine, past the agent.
        """
        adapters = [
            adapter.model_copy(update={"residency": ResidencyClass.PREFERRED})
            if adapter.residency is ResidencyClass.ON_DEMAND
            else adapter
            for adapter in document.adapters
        ]
        self.residency.set_desired(document.model_copy(update={"adapters": adapters}))

    def not_ready_because(self) -> str | None:
        """What keeps the pod from being ready; None when it is."""
        if self.lifecycle.draining:
            return "draining"
        if not self._answers:
            return f"the engine does not answer: {self._silence}"
        if not self.residency.desired_known:
            return "no desired adapters have been sent yet"
        if not self._was_ready and not self.residency.settled():
            waiting = [f"{row.id} ({row.reason})" for row in self.residency.report() if row.reason != "Resident"]
            return f"adapters are not resident yet: {', '.join(waiting)}"
        self._was_ready = True
        return None

    def report(self) -> AdaptersReport:
        """What this pod says of itself to the operator and the gateway."""
        return AdaptersReport(
            model=self._model_name,
            base_loaded=self._answers,
            desired_known=self.residency.desired_known,
            draining=self.lifecycle.draining,
            max_batch_size=self._max_batch_size,
            base_digest=self.base.digest() if self.base is not None else None,
            adapters=self.residency.report(),
        )

    async def look(self) -> None:
        """Ask the engine once. An adapter that it has lost (it was restarted) is loaded again."""
        try:
            held = await self._engine.adapters()
        except EngineSilentError as error:
            if self._answers:
                _log.warning("the engine has fallen silent: %s", error)
            # Silence is not an empty engine: nothing is taken for lost, and nothing is served from here meanwhile.
            self._answers, self._silence = False, str(error)
            return
        if not self._answers:
            _log.info("the engine answers", extra={"adapters": len(held)})
        self._answers = True
        lost = [adapter for adapter in self.residency.resident() if adapter not in held]
        if lost:
            _log.warning("the engine has lost adapters", extra={"adapters": lost})
            self.residency.lost(lost)

    async def watch(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> NoReturn:
        """Look for ever."""
        while True:
            await self.look()
            await sleep(LOOK_SECONDS)
