"""Asks the gateways what became of an adapter's requests, and which split they follow."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import aiohttp
from pydantic import ValidationError

from motet_api.names import OUTCOMES_PATH
from motet_api.wire import LONGEST_OUTCOME_SECONDS, AdapterOutcome
from motet_operator.errors import OperatorError
from motet_operator.keys import ObjectName
from motet_operator.metrics_api.demand import Gateway
from motet_operator.metrics_api.gateways import PathReader, gateways_of, slices_of

log = logging.getLogger(__name__)

TIMEOUT_SECONDS: Final = 2.0
_LISTED_SECONDS: Final = 2.0
"""For so long a list of the gateways is good: several adapters are asked for at a time."""

Outcomes = tuple[AdapterOutcome | None, ...]
"""What each gateway says; None for one that does not answer."""


class OutcomesClient:
    """`service` is the gateways' Service, `clock` monotonic seconds."""

    def __init__(
        self,
        cluster: PathReader,
        session: aiohttp.ClientSession,
        service: tuple[str, str],
        clock: Callable[[], float],
    ) -> None:
        self._cluster = cluster
        self._session = session
        self._service = service
        self._clock = clock
        self._listed: tuple[float, frozenset[Gateway]] | None = None
        self._listing = asyncio.Lock()

    async def ask(self, adapter: ObjectName, seconds: float) -> Outcomes:
        """The outcomes of so many seconds. While the gateways cannot be listed one is assumed, that says nothing."""
        try:
            gateways = await self._gateways()
        except OperatorError as error:
            log.warning("the gateways cannot be listed: %s", error)
            return (None,)
        span = min(max(seconds, 0.0), LONGEST_OUTCOME_SECONDS)
        asked = [self._ask(gateway, adapter, span) for gateway in sorted(gateways, key=lambda found: found.url)]
        return tuple(await asyncio.gather(*asked))

    async def _gateways(self) -> frozenset[Gateway]:
        async with self._listing:
            now = self._clock()
            if self._listed is None or now - self._listed[0] >= _LISTED_SECONDS:
                self._listed = now, frozenset(gateways_of(await slices_of(self._cluster, self._service)))
            return self._listed[1]

    async def _ask(self, gateway: Gateway, adapter: ObjectName, seconds: float) -> AdapterOutcome | None:
        namespace, name = adapter
        url = f"{gateway.url}{OUTCOMES_PATH}/{namespace}/{name}"
        within = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        try:
            async with self._session.get(url, params={"seconds": f"{seconds:g}"}, timeout=within) as response:
                response.raise_for_status()
                return AdapterOutcome.model_validate_json(await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError, ValidationError) as error:
            log.warning("gateway %s says nothing of %s/%s: %s", gateway.url, namespace, name, error or repr(error))
            return None
