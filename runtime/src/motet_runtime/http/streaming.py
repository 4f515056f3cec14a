"""Server-sent events for as long as their client listens, holding what they need until then."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import ExitStack, aclosing

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from motet_runtime.generation import GenerationRequest, TokenEvent
from motet_runtime.http.headers import served_by
from motet_runtime.service import Service

Events = AsyncGenerator[str]


async def event_stream(
    service: Service, wanted: GenerationRequest, events: Callable[[AsyncGenerator[TokenEvent]], Events]
) -> "EventStream":
    """A stream of what `events` makes of the answer's tokens.

    It counts as in flight, and keeps its adapter resident, until it ends in whatever way. Both are entered, and
    what can be refused is refused, before the answer starts: an error that is known by then must be said by status.

    Raises:
        RequestError: no requests are taken, or this one does not suit its adapter or its grammar.
    """
    with ExitStack() as held:
        held.enter_context(service.lifecycle.request())
        held.enter_context(service.residency.use(wanted.adapter))
        generator = service.base.generator
        tokens = generator.stream(await generator.prepare(wanted))
        headers = served_by(service.settings, wanted.adapter) | {
            "X-Accel-Buffering": "no",
            "Cache-Control": "no-cache",
        }
        return EventStream(events(tokens), headers, held.pop_all())


class EventStream(StreamingResponse):
    """Sends events, then closes them and lets go of what is `held` for them."""

    def __init__(self, events: Events, headers: Mapping[str, str], held: ExitStack) -> None:
        self._events = events
        self._held = held
        super().__init__(events, media_type="text/event-stream", headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        with self._held:
            # Closed before the adapter is let go: what the engine computes for a client that left must end first.
            async with aclosing(self._events):
                await super().__call__(scope, receive, send)
