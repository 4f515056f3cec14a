"""Asks every gateway pod for its demand, once a second."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final, NoReturn, Protocol

import aiohttp
from pydantic import ValidationError

from motet_api.names import DEMAND_PATH
from motet_api.wire import Demand
from motet_operator.errors import OperatorError
from motet_operator.metrics_api.demand import DemandBook, Gateway

log = logging.getLogger(__name__)

POLL_SECONDS: Final = 1.0
TIMEOUT_SECONDS: Final = 2.0
_PORT_NAME: Final = "http"


def gateways_of(slices: list[dict[str, Any]]) -> set[Gateway]:
    """The gateways in EndpointSlices: ready ones, and those that still finish their requests."""
    return {gateway for item in slices for gateway in _of_slice(item)}


def _of_slice(item: dict[str, Any]) -> Iterator[Gateway]:
    ports = [entry["port"] for entry in item.get("ports") or [] if entry.get("name") == _PORT_NAME]
    for endpoint in item.get("endpoints") or []:
        conditions = endpoint.get("conditions") or {}
        if not ports or not (conditions.get("ready", True) or conditions.get("serving")):
            continue
        address = endpoint["addresses"][0]
        host = f"[{address}]" if ":" in address else address
        yield Gateway(f"http://{host}:{ports[0]}", ready=bool(conditions.get("ready", True)))


class PathReader(Protocol):
    """Reads what is at a path of the API server."""

    async def read(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The object, or the list. Raises: OperatorError."""
        ...


async def slices_of(cluster: PathReader, service: tuple[str, str]) -> list[dict[str, Any]]:
    """The EndpointSlices of a Service: namespace and name. Raises: OperatorError."""
    namespace, name = service
    query = {"labelSelector": f"kubernetes.io/service-name={name}", "resourceVersion": "0"}
    path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
    return (await cluster.read(path, query)).get("items") or []


class DemandPoller:
    """Keeps a book up to date. `service` is the gateways' Service: namespace and name."""

    def __init__(
        self,
        cluster: PathReader,
        session: aiohttp.ClientSession,
        service: tuple[str, str],
        book: DemandBook,
        now: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._cluster = cluster
        self._session = session
        self._service = service
        self._book = book
        self._now = now
        self._sleep = sleep
        self._known: set[Gateway] = set()

    async def run(self) -> NoReturn:
        """Poll for ever."""
        while True:
            await self.poll()
            await self._sleep(POLL_SECONDS)

    async def poll(self) -> None:
        """One round. What fails leaves the book as it was, and so makes it older."""
        try:
            self._known = gateways_of(await slices_of(self._cluster, self._service))
            self._book.set_gateways(self._known, self._now())
        except OperatorError as error:
            log.warning("the gateways cannot be listed: %s", error)
        await asyncio.gather(*(self._ask(gateway) for gateway in self._known))

    async def _ask(self, gateway: Gateway) -> None:
        within = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        try:
            async with self._session.get(gateway.url + DEMAND_PATH, timeout=within) as response:
                response.raise_for_status()
                demand = Demand.model_validate_json(await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError, ValidationError) as error:
            log.warning("gateway %s does not tell its demand: %s", gateway.url, error or repr(error))
            return
        self._book.heard(gateway, demand, self._now())
