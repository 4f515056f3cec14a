"""Talks to one runtime pod on its admin port: what do you hold, and this is what you must hold."""

from collections.abc import Callable
from typing import Final, Protocol, TypeVar

import aiohttp
from pydantic import ValidationError

from motet_api.names import ADAPTERS_PATH, ADMIN_PORT, BASE_PATH
from motet_api.objects import KubeModel
from motet_api.wire import AdaptersReport, BaseDescription, DesiredAdapters
from motet_operator.errors import NotLeadingError, SilentPodError

AnswerT = TypeVar("AnswerT", bound=KubeModel)

TIMEOUT_SECONDS: Final = 2.0


class CallCounter(Protocol):
    """Counts calls of runtime pods."""

    def runtime_called(self, method: str, answered: bool) -> None:
        """One call ended."""
        ...


class RuntimeClient:
    """Every call ends within two seconds, one way or the other."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        counter: CallCounter,
        admin_port: int = ADMIN_PORT,
        may_act: Callable[[], bool] = lambda: True,
    ) -> None:
        """`may_act` is asked at the last moment before a pod is told anything."""
        self._may_act = may_act
        self._session = session
        self._counter = counter
        self._port = admin_port

    async def report(self, ip: str) -> AdaptersReport:
        """What the pod holds. Raises: SilentPodError."""
        return await self._call("GET", ip, None, ADAPTERS_PATH, AdaptersReport)

    async def tell(self, ip: str, document: DesiredAdapters) -> AdaptersReport:
        """Give the pod the whole set that it must hold; returns what it holds now.

        Raises: SilentPodError, NotLeadingError.
        """
        if not self._may_act():
            raise NotLeadingError(f"{ip}: not told, because this replica leads no more")
        return await self._call("PUT", ip, document, ADAPTERS_PATH, AdaptersReport)

    async def base(self, ip: str) -> BaseDescription:
        """What the pod's base looks like. Raises: SilentPodError."""
        return await self._call("GET", ip, None, BASE_PATH, BaseDescription)

    async def _call(
        self, method: str, ip: str, document: DesiredAdapters | None, path: str, answer: type[AnswerT]
    ) -> AnswerT:
        try:
            report = await self._exchange(method, ip, document, path, answer)
        except SilentPodError:
            self._counter.runtime_called(method, answered=False)
            raise
        self._counter.runtime_called(method, answered=True)
        return report

    async def _exchange(
        self, method: str, ip: str, document: DesiredAdapters | None, path: str, answer: type[AnswerT]
    ) -> AnswerT:
        host = f"[{ip}]" if ":" in ip else ip
        url = f"http://{host}:{self._port}{path}"
        body = document.to_wire() if document is not None else None
        within = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        try:
            async with self._session.request(method, url, json=body, timeout=within) as response:
                if response.status != 200:
                    raise SilentPodError(f"it answers {method} with status {response.status}")
                return answer.model_validate_json(await response.read())
        except aiohttp.ClientConnectorError as error:
            raise SilentPodError(f"cannot connect to {host}:{self._port}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise SilentPodError(str(error) or f"no answer within {TIMEOUT_SECONDS:g} s") from error
        except ValidationError as error:
            raise SilentPodError(f"it answers what is no report: {error.errors()[0]['msg']}") from error
