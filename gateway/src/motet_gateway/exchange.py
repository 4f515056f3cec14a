"""One request and its answer, as the layers around the routes see it: its id, what became of it, and when."""

from dataclasses import dataclass, field
from typing import Final

from starlette.types import Scope

from motet_gateway.resolve import Route

CLIENT_CLOSED: Final = 499
"""Stands for "the client left" in metrics; never sent."""

_KEY: Final = "motet.exchange"


@dataclass(slots=True)
class Exchange:
    """Filled in on the way. `outcome` is the status for the metrics where it is not the one that was sent.

    `complete` says that the whole answer was sent: a client that hangs up after that has not left early.
    """

    request_id: str
    body: bytes = field(default=b"", repr=False)
    route: Route | None = None
    status: int | None = None
    outcome: int | None = None
    complete: bool = False
    first_byte_at: float | None = None

    def take_body(self) -> bytes:
        """The body, for the one who parses it; it is not kept twice while the request waits."""
        body, self.body = self.body, b""
        return body


def begin(scope: Scope, exchange: Exchange) -> None:
    """Attach the exchange to the request."""
    scope[_KEY] = exchange


def exchange_of(scope: Scope) -> Exchange:
    """The exchange of the request."""
    found = scope[_KEY]
    if not isinstance(found, Exchange):
        raise TypeError("the exchange is attached by the outermost layer")
    return found
