"""Which addresses the store may connect to: the public ones, and the networks that the installation names.

A tenant chooses URIs, so without this rule the store would fetch the cloud's metadata service, the API server or a
neighbour's database for them. Pure; the address is that of the connection (`connector.py`), never that of an earlier
look-up, so a name that resolves anew to something else gains nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Protocol

Network = IPv4Network | IPv6Network

_NAT64: Final = IPv6Network("64:ff9b::/96")


class AddressRule(Protocol):
    """Says which addresses may be connected to, at the moment it is asked."""

    def permits(self, address: str) -> bool:
        """Whether a connection to this address is allowed."""
        ...

    def names(self, address: str) -> bool:
        """Whether the installation itself names a network with this address."""
        ...


@dataclass(frozen=True, slots=True)
class NamedOnly:
    """Of a rule, only the networks that the installation names."""

    rule: AddressRule

    def permits(self, address: str) -> bool:
        """Whether a connection to this address is allowed."""
        return self.rule.names(address)

    def names(self, address: str) -> bool:
        """The same."""
        return self.rule.names(address)


@dataclass(frozen=True, slots=True)
class Networks:
    """`allowed` are networks beside the public ones, such as that of an object store inside the cluster."""

    allowed: tuple[Network, ...] = ()

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Networks":
        """Read CIDRs. Raises: ValueError."""
        return cls(tuple(ip_network(text) for text in texts))

    def permits(self, address: str) -> bool:
        """Whether a connection to this address is allowed; what is no address is not."""
        ip = _read(address)
        if ip is None:
            return False
        return self.names(address) or (ip.is_global and not ip.is_multicast and not ip.is_reserved)

    def names(self, address: str) -> bool:
        """Whether one of `allowed` has this address."""
        ip = _read(address)
        return ip is not None and any(ip in network for network in self.allowed)


def _read(address: str) -> IPv4Address | IPv6Address | None:
    try:
        return _inner(ip_address(address.partition("%")[0]))
    except ValueError:
        return None


def _inner(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv6 one stands for (mapped, 6to4, NAT64), else the address itself."""
    if isinstance(ip, IPv4Address):
        return ip
    if ip in _NAT64:
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip
