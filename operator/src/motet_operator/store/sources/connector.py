"""The connector of the store's HTTP client: no socket is made for an address that the rule does not permit.

aiohttp asks `socket_factory` for the socket of the very address that it is about to connect to, for names and for
literal addresses, at every connection. That is the rule's one place; the resolver only sorts out early what would fail.
"""

import socket
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from motet_api.reasons import AdapterReason
from motet_operator.store.sources.contract import SourceError
from motet_operator.store.sources.networks import AddressRule

AddressInfo = tuple[Any, ...]
Refused = Callable[[str], SourceError]
"""The error for a host, or an address, that is not permitted."""


class GuardedResolver(AbstractResolver):
    """Leaves the addresses out that are not permitted, and says so when none is left."""

    def __init__(self, networks: AddressRule, inner: AbstractResolver, refused: Refused) -> None:
        self._networks = networks
        self._refused = refused
        self._inner = inner

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The permitted addresses of a host. Raises: SourceError when there are others only, OSError for none."""
        found = await self._inner.resolve(host, port, family)
        permitted = [entry for entry in found if self._networks.permits(entry["host"])]
        if found and not permitted:
            raise self._refused(host)
        return permitted

    async def close(self) -> None:
        """Close the resolver that does the work."""
        await self._inner.close()


def refused(host: str) -> SourceError:
    """The error for a host in a network that is not permitted."""
    message = (
        f"{host} is in a private, loopback, link-local or otherwise reserved network; an administrator can allow it "
        "with the store's allowed networks"
    )
    return SourceError(AdapterReason.SOURCE_NOT_ALLOWED, message)


def refused_credentials(host: str) -> SourceError:
    """The error for a host that credentials would travel to in the open."""
    message = (
        f"credentials are not sent to {host} over plain http: use https, or have the installation's administrator name "
        "its network in privateNetworks (chart value policy)"
    )
    return SourceError(AdapterReason.SOURCE_NOT_ALLOWED, message)


def guarded_connector(
    networks: AddressRule, resolver: AbstractResolver | None = None, refused: Refused = refused
) -> aiohttp.TCPConnector:
    """A connector that refuses addresses. `resolver` is the one that asks the system unless given."""

    def make_socket(info: AddressInfo) -> socket.socket:
        family, kind, proto, _, address = info
        if not networks.permits(str(address[0])):
            raise refused(str(address[0]))
        made = socket.socket(family=family, type=kind, proto=proto)
        made.setblocking(False)
        return made

    return aiohttp.TCPConnector(
        resolver=GuardedResolver(networks, resolver or aiohttp.ThreadedResolver(), refused),
        socket_factory=make_socket,
        use_dns_cache=False,
        limit=0,  # the store bounds its jobs; a request that waits for a place would use up its time to connect
        force_close=True,
    )
