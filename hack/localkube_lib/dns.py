"""The cluster's DNS: answers for Services by name with their addresses, and for nothing else.

Runs inside the cluster's network namespace, which has no way out: there is nobody to forward a question to. It asks
the API server when it is asked itself, at most once a second, and answers from what it heard last while that is down.
"""

import argparse
import http.client
import ipaddress
import json
import socketserver
import ssl
import struct
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

DOMAIN: Final = "cluster.local"
TTL_SECONDS: Final = 2
_FRESH_SECONDS: Final = 1.0
_LONGEST: Final = 512
_TYPE_A: Final = 1
_CLASS_IN: Final = 1
_ANSWER: Final = 0x8400
"""A response, and an authoritative one; the asker's own bit for recursion is kept beside it."""
_RECURSION_DESIRED: Final = 0x0100
_NO_SUCH_NAME: Final = 3
_NAME_OF_QUESTION: Final = 0xC00C
"""A pointer to where the question's name stands, right after the header."""

Addresses = Mapping[str, str]
"""IPv4 addresses by name, without the dot at the end."""


def addresses(services: Mapping[str, Any]) -> dict[str, str]:
    """The names of Services that have an address of their own, from a list of Services."""
    return {
        f"{item['metadata']['name']}.{item['metadata']['namespace']}.svc.{DOMAIN}": item["spec"]["clusterIP"]
        for item in services["items"]
        if item["spec"].get("clusterIP", "None") not in {"", "None"}
    }


def answer(query: bytes, known: Addresses) -> bytes | None:
    """The answer to a message with one question; None to what is no question at all.

    A name that is known and of which something else than an IPv4 address is asked has an answer without records.
    """
    if len(query) < 12 or len(query) > _LONGEST:
        return None
    number, flags, questions = struct.unpack_from("!HHH", query)
    try:
        name, end = _name(query, 12)
        kind, family = struct.unpack_from("!HH", query, end)
    except (IndexError, struct.error, UnicodeDecodeError):
        return None
    if flags & 0x8000 or questions != 1:
        return None
    question = query[12 : end + 4]
    address = known.get(name.lower())
    flags = _ANSWER | (flags & _RECURSION_DESIRED) | (0 if address else _NO_SUCH_NAME)
    record = b""
    if address and (kind, family) == (_TYPE_A, _CLASS_IN):
        record = struct.pack("!HHHIH", _NAME_OF_QUESTION, _TYPE_A, _CLASS_IN, TTL_SECONDS, 4)
        record += ipaddress.IPv4Address(address).packed
    return struct.pack("!HHHHHH", number, flags, 1, 1 if record else 0, 0, 0) + question + record


def _name(message: bytes, at: int) -> tuple[str, int]:
    """The name at an offset, and where it ends. Raises: IndexError: the message is cut off, or the name a pointer."""
    labels = []
    while message[at]:
        length = message[at]
        if length > 63 or at + 1 + length >= len(message):
            raise IndexError(at)
        labels.append(message[at + 1 : at + 1 + length].decode("ascii"))
        at += 1 + length
    return ".".join(labels), at + 1


class Names:
    """What the API server said last, read anew when it is older than a second."""

    def __init__(self, read: Callable[[], Mapping[str, Any] | None], clock: Callable[[], float]) -> None:
        self._read = read
        self._clock = clock
        self._known: Addresses = {}
        self._read_at = -_FRESH_SECONDS

    def current(self) -> Addresses:
        """Addresses by name."""
        now = self._clock()
        if now - self._read_at >= _FRESH_SECONDS:
            self._read_at = now
            services = self._read()
            if services is not None:
                self._known = addresses(services)
        return self._known


def read_services(port: int, ca: str, cert: str, key: str) -> dict[str, Any] | None:
    """Every Service; None while the API server does not answer."""
    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(cert, key)
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=2, context=context)
    try:
        connection.request("GET", "/api/v1/services")
        response = connection.getresponse()
        found: dict[str, Any] = json.loads(response.read())
        return found if response.status == http.client.OK else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def main() -> None:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--api-port", type=int, required=True)
    for name in ("ca", "cert", "key"):
        parser.add_argument(f"--{name}", required=True, help="a PEM file")
    options = parser.parse_args()
    names = Names(lambda: read_services(options.api_port, options.ca, options.cert, options.key), time.monotonic)

    class Handler(socketserver.BaseRequestHandler):
        """One message."""

        def handle(self) -> None:
            query, socket = self.request
            said = answer(query, names.current())
            if said is not None:
                socket.sendto(said, self.client_address)

    with socketserver.UDPServer((options.address, 53), Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
