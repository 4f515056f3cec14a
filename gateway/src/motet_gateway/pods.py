"""The HTTP client that talks to pods, and the question what they hold."""

from typing import Final

import aiohttp
from pydantic import ValidationError

from motet_api.names import ADAPTERS_PATH
from motet_api.wire import AdaptersReport
from motet_gateway.residency import PodUnreachableError
from motet_gateway.table import Pod

CONNECT_SECONDS: Final = 2.0
REPORT_SECONDS: Final = 2.0
KEEP_ALIVE_SECONDS: Final = 3.0
"""Below the five seconds after which uvicorn closes an idle connection: otherwise requests would now and then be sent
into a connection that is just being closed."""


def make_session() -> aiohttp.ClientSession:
    """A session for all pods. Bodies are passed on as they are, so nothing is decompressed; no proxy is used.

    The number of connections is not limited here: the dispatcher bounds how many requests a pod gets.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        # For every call that does not say otherwise.
        timeout=aiohttp.ClientTimeout(total=REPORT_SECONDS, sock_connect=CONNECT_SECONDS),
    )


class HttpReportFetcher:
    """`GET /motet/v1/adapters` of a pod, or of the agent beside its engine."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def fetch(self, pod: Pod) -> AdaptersReport:
        """What the pod holds.

        Raises:
            PodUnreachableError: it did not answer in time, or its answer is not a report.
        """
        try:
            async with self._session.get(f"http://{pod.reports_at or pod.address}{ADAPTERS_PATH}") as response:
                body = await response.read()
                if response.status != 200:
                    raise PodUnreachableError(f"status {response.status}")
            return AdaptersReport.model_validate_json(body)
        except (TimeoutError, aiohttp.ClientError, ValidationError) as error:
            raise PodUnreachableError(f"{type(error).__name__}: {error}") from error
