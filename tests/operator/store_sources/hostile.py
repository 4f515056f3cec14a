"""What a row of the table of hostile sources is."""

from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web

from motet_api.reasons import AdapterReason
from tests.operator.store_sources.servers import Handler


@dataclass(frozen=True)
class Hostile:
    """`serve` answers every request of the source, whose URI is `uri` with the server's address put in.

    `most_bytes` is what may have been written to disk in the end; `retry_after` what the error must carry.
    `most_memory` is counted with the local server's buffers; `prepare` makes what takes long to make.
    """

    name: str
    reason: AdapterReason
    serve: Handler
    uri: str = "http://{host}/adapter"
    most_bytes: int = 0
    retry_after: float | None = None
    says: str = ""
    secret: dict[str, bytes] = field(default_factory=dict)
    most_memory: int = 8 << 20
    prepare: Callable[[], object] = lambda: None


def always(make: Callable[[], web.StreamResponse]) -> Handler:
    """The same answer to everything."""

    async def serve(request: web.Request) -> web.StreamResponse:
        return make()

    return serve
