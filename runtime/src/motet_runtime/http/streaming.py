"""Server-sent events for as long as their client listens, holding what they need until then."""

from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from motet_api.identity import AdapterId
from motet_runtime.http.headers import served_by
from motet_runtime.service import Service


class EventStream(StreamingResponse):
    """A stream of events that counts as in flight, and keeps its adapter resident, until it ends in whatever way.

    Both are entered when it is made, before the answer starts: a pod that takes no more requests must say so by status.
    """

    def __init__(self, service: Service, adapter: AdapterId | None, events: AsyncIterator[str]) -> None:
        self._held = ExitStack()
        self._held.enter_context(service.lifecycle.request())
        self._held.enter_context(service.residency.use(adapter))
        headers: Mapping[str, str] = served_by(service.settings, adapter) | {
            "X-Accel-Buffering": "no",
            "Cache-Control": "no-cache",
        }
        super().__init__(events, media_type="text/event-stream", headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        with self._held:
            await super().__call__(scope, receive, send)
