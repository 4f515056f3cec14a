"""The TLS listener, and what it trusts: opened anew when its certificate or the cluster's authority changes."""

import hashlib
import logging
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol

from aiohttp import web

from motet_operator.errors import OperatorError
from motet_operator.metrics_api.identity import RequestHeaderTrust, read_trust

log = logging.getLogger(__name__)

REFRESH_SECONDS: Final = 30.0
_CONFIG_MAP: Final = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"


def server_context(certificate: Path, key: Path, authority: str) -> ssl.SSLContext:
    """Clients may come without a certificate (probes do); one that they show must be signed by the authority (PEM)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(cadata=authority)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


class PathReader(Protocol):
    """Reads what is at a path of the API server."""

    async def read(self, path: str) -> dict[str, Any]:
        """The object. Raises: OperatorError."""
        ...


class Listener:
    """One port, with the certificate and the authority of now."""

    def __init__(self, cluster: PathReader, certificate: Path, key: Path, port: int, host: str | None = None) -> None:
        self._cluster = cluster
        self._certificate = certificate
        self._key = key
        self._port = port
        self._host = host
        self._site: web.TCPSite | None = None
        self._opened_with = ""
        self._trust: RequestHeaderTrust | None = None

    def trust(self) -> RequestHeaderTrust:
        """What is trusted now. Requests come only after the first `refresh`."""
        assert self._trust is not None
        return self._trust

    async def refresh(self, runner: web.AppRunner) -> None:
        """Read certificate and authority; open the port, or open it anew if they have changed.

        Raises:
            OperatorError: the authority cannot be read from the cluster.
            OSError, ssl.SSLError, ValueError: what was read cannot be used.
        """
        trust = read_trust(await self._cluster.read(_CONFIG_MAP))
        material = self._certificate.read_bytes() + self._key.read_bytes() + trust.authority.encode()
        digest = hashlib.sha256(material).hexdigest()
        self._trust = trust
        if digest == self._opened_with:
            return
        context = server_context(self._certificate, self._key, trust.authority)
        if self._site is not None:
            log.info("certificate or authority have changed: opening the port anew")
            await self._site.stop()
        self._site = web.TCPSite(runner, self._host, self._port, ssl_context=context)
        await self._site.start()
        self._opened_with = digest

    async def run(self, runner: web.AppRunner, sleep: Callable[[float], Awaitable[None]]) -> NoReturn:
        """Refresh for ever. What cannot be read or used leaves things as they are."""
        while True:
            await sleep(REFRESH_SECONDS)
            try:
                await self.refresh(runner)
            except (OperatorError, OSError, ValueError) as error:
                log.warning("certificate and authority stay as they are: %s", error)
