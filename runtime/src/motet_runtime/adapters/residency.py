"""Makes the resident adapters equal to the desired ones, several loads at a time, beside the running batch.

Invariant: an id is installed with the source it was verified from, and with no other until it has been drained and
removed. A desired id whose source changed is another adapter: the old one drains first. What is resident depends on the
last document only, and on which adapters on demand were asked for; not on how it was arrived at.

| class     | loaded                    | a new pod waits for it | a request that names it before                      |
|-----------|---------------------------|------------------------|-----------------------------------------------------|
| Required  | at once, before others    | yes                    | 503 adapter_not_ready                               |
| Preferred | at once, after the others | no                     | 503 adapter_not_ready                               |
| OnDemand  | by the first such request | no                     | waits for it, at most `ON_DEMAND_SECONDS`, then 503 |

What was on demand and has been loaded stays known and verified. If nobody asks for it, its weights leave the slots, the
host memory and in the end the disk, each of which gives up what was used longest ago (`library.py`).
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from motet_api.artifact.adapter import Artifact
from motet_api.errors import ErrorCode
from motet_api.identity import AdapterId
from motet_api.loraadapter import Residency as ResidencyClass
from motet_api.reasons import AdapterReason
from motet_api.wire import AdapterReport, DesiredAdapter, DesiredAdapters
from motet_runtime.adapters.entry import Entry
from motet_runtime.errors import AdapterError, RequestError

_log = logging.getLogger(__name__)
PARALLEL: Final = 4
"""Loads at a time. A load that is slow does not count any more, so that a few slow sources hold up no others."""
SLOW_SECONDS: Final = 10.0
MOST_PARALLEL: Final = 32
"""Loads at a time, slow ones included."""
ON_DEMAND_SECONDS: Final = 30.0
"""A request waits so long for an adapter on demand."""


class AdapterLoader(Protocol):
    """Brings adapters into the engine and out of it. Used for several adapters at once, for one by one caller."""

    async def load(self, desired: DesiredAdapter, store: str) -> Artifact:
        """Fetch, verify and install; `store` is the adapter store's address, empty if there is none.

        Raises:
            AdapterError: it cannot be loaded.
        """
        ...

    async def unload(self, adapter: AdapterId) -> None:
        """Free its weights; nothing uses them any more."""
        ...


class Residency:
    """The adapters of one pod. Used from the event loop only. `clock` is monotonic seconds."""

    def __init__(
        self, loader: AdapterLoader, clock: Callable[[], float], on_demand_seconds: float = ON_DEMAND_SECONDS
    ) -> None:
        self._loader = loader
        self._clock = clock
        self._on_demand_seconds = on_demand_seconds
        self._desired: dict[AdapterId, DesiredAdapter] | None = None
        self._store = ""
        self._entries: dict[AdapterId, Entry] = {}
        self._loads: dict[AdapterId, tuple[asyncio.Task[None], float]] = {}
        """Loads that run, and when each began."""
        self._wake = asyncio.Event()

    @property
    def desired_known(self) -> bool:
        """Whether any document has arrived."""
        return self._desired is not None

    def set_desired(self, document: DesiredAdapters) -> None:
        """Take in a document: the whole set, every time."""
        self._desired = {adapter.id: adapter for adapter in document.adapters}
        self._store = document.store
        self._mark()
        self._wake.set()

    def lost(self, adapters: Iterable[AdapterId]) -> None:
        """Take in that adapters that were resident are not any more: they are loaded again."""
        for adapter in adapters:
            entry = self._entries.get(adapter)
            if entry is not None and entry.reason is AdapterReason.RESIDENT:
                entry.reason, entry.due = AdapterReason.LOADING, self._clock()
        self._wake.set()

    def settled(self) -> bool:
        """Whether every required adapter is resident, or has failed: for good, or `PATIENCE` times.

        A new pod waits a while for a source that does not answer, but not for ever: one wrong path would otherwise keep
        every new pod of a model away from the adapters that are well. But what pods of an earlier template serve must
        arrive: it is this pod that is wrong for it.
        """
        return self._desired is not None and not self.awaited()

    def awaited(self) -> list[AdapterReport]:
        """What a new pod still waits for."""
        required = [
            # One that is being unloaded, to come from another source, has no entry for a moment.
            self._entries.get(adapter) or Entry(wanted)
            for adapter, wanted in sorted((self._desired or {}).items())
            if wanted.residency is ResidencyClass.REQUIRED
        ]
        return [entry.report() for entry in required if not entry.settled]

    def report(self) -> list[AdapterReport]:
        """What is to be said of each adapter."""
        return [entry.report() for _, entry in sorted(self._entries.items())]

    def resident(self) -> list[AdapterId]:
        """Adapters that serve."""
        return sorted(name for name, entry in self._entries.items() if entry.reason is AdapterReason.RESIDENT)

    @contextmanager
    def use(self, adapter: AdapterId | None) -> Iterator[None]:
        """Hold an adapter resident while a request uses it."""
        entry = self._entries.get(adapter) if adapter else None
        if entry is None:
            yield
            return
        entry.in_flight += 1
        try:
            yield
        finally:
            entry.in_flight -= 1
            if entry.in_flight == 0 and entry.reason is AdapterReason.DRAINING:
                self._wake.set()

    async def resolve(self, name: str) -> AdapterId:
        """The resident adapter that a request names, by `name@version` or, if it is the only version, by `name`.

        One that is on demand and not here is loaded first; however many requests wait for it, it is loaded once.

        Raises:
            RequestError: there is none, or it is not here (yet, or for a reason that the message says).
        """
        adapter = self._named(name)
        entry = self._entries.get(adapter)
        if entry is not None and entry.on_demand and not entry.placed:
            await self._asked_for(entry)
        entry = self._entries.get(adapter)
        if entry is None or entry.reason is AdapterReason.DRAINING:
            raise self._unknown(adapter)
        if entry.reason is not AdapterReason.RESIDENT:
            detail = f": {entry.message}" if entry.message else ""
            raise RequestError(ErrorCode.ADAPTER_NOT_READY, f"{adapter} is not resident ({entry.reason}){detail}")
        return adapter

    async def run(self) -> None:
        """Reconcile for ever."""
        try:
            while True:
                self._wake.clear()
                self._end_loads()
                await self._unload_drained()
                now = self._clock()
                self._start_loads(now)
                try:
                    async with asyncio.timeout(self._until_next(now)):
                        await self._wake.wait()
                except TimeoutError:
                    continue
        finally:
            loads = [task for task, _ in self._loads.values()]
            for task in loads:
                task.cancel()
            await asyncio.gather(*loads, return_exceptions=True)

    def _named(self, name: str) -> AdapterId:
        if "@" in name:
            return AdapterId(name)
        versions = [adapter for adapter in self._servable() if adapter.partition("@")[0] == name]
        if len(versions) == 1:
            return versions[0]
        if versions:
            raise RequestError(
                ErrorCode.MODEL_AMBIGUOUS, f"{name!r} has several versions: name one of {_listed(versions)}"
            )
        raise self._unknown(name)

    def _servable(self) -> list[AdapterId]:
        """Adapters that can be asked for: resident, or loaded when they are."""
        return sorted(
            name
            for name, entry in self._entries.items()
            if entry.reason is AdapterReason.RESIDENT or (entry.on_demand and not entry.placed)
        )

    async def _asked_for(self, entry: Entry) -> None:
        """Have it loaded, unless it has just failed, and wait until it is or has failed.

        Raises:
            RequestError: that takes too long.
        """
        if entry.reason.failed and entry.due > self._clock():
            return
        if not entry.asked:
            entry.asked, entry.due = True, self._clock()
            entry.decided.clear()
            self._wake.set()
        try:
            async with asyncio.timeout(self._on_demand_seconds):
                await entry.decided.wait()
        except TimeoutError:
            message = f"{entry.desired.id} is being loaded for this request and others: retry in a few seconds"
            raise RequestError(ErrorCode.ADAPTER_NOT_READY, message) from None

    def _unknown(self, name: str) -> RequestError:
        base = name.partition("@")[0]
        served = self._servable()
        versions = [adapter for adapter in served if adapter.partition("@")[0] == base]
        if versions:
            return RequestError(
                ErrorCode.VERSION_NOT_FOUND, f"{name!r} is not served here; {base} has {_listed(versions)}"
            )
        return RequestError(
            ErrorCode.ADAPTER_NOT_FOUND, f"adapter {name!r} is not served here; served are {_listed(served)}"
        )

    def _mark(self) -> None:
        desired = self._desired or {}
        for adapter, entry in list(self._entries.items()):
            wanted = desired.get(adapter)
            if wanted is not None and entry.is_what(wanted):
                entry.desired = wanted
                if entry.reason is AdapterReason.DRAINING:
                    entry.reason, entry.message = AdapterReason.RESIDENT, ""
            elif entry.placed:
                entry.reason = AdapterReason.DRAINING
                entry.message = f"no longer desired; {entry.in_flight} requests in flight"
            else:
                # Whoever waits for it is to look again.
                self._entries.pop(adapter).decided.set()
        for adapter, wanted in desired.items():
            self._entries.setdefault(adapter, Entry(wanted))
        for entry in self._entries.values():
            if entry.reason in (AdapterReason.LOADING, AdapterReason.STANDBY):
                entry.reason = AdapterReason.LOADING if entry.to_load else AdapterReason.STANDBY

    async def _unload_drained(self) -> None:
        self._mark()
        # Looked for one by one: while one is unloaded, another may be wanted again, and used.
        while (adapter := next((name for name, entry in self._entries.items() if entry.drained), None)) is not None:
            # Forgotten first: wanted again from here on, it is loaded anew and not served from what is being freed.
            del self._entries[adapter]
            await self._loader.unload(adapter)
            _log.info("adapter unloaded", extra={"adapter": adapter})
        # What was unloaded and is wanted again has an entry again.
        self._mark()

    def _end_loads(self) -> None:
        for adapter, (task, _) in list(self._loads.items()):
            if task.done():
                del self._loads[adapter]
                task.result()

    def _start_loads(self, now: float) -> None:
        due = [entry for entry in self._waiting() if entry.due <= now]
        quick = sum(now - began < SLOW_SECONDS for _, began in self._loads.values())
        room = min(PARALLEL - quick, MOST_PARALLEL - len(self._loads))
        for entry in sorted(due, key=lambda entry: entry.urgency)[: max(room, 0)]:
            self._loads[entry.desired.id] = (asyncio.create_task(self._load(entry)), now)

    def _waiting(self) -> list[Entry]:
        """What is to be loaded, and is not being loaded. An id that still loads from another source waits for that."""
        return [entry for adapter, entry in self._entries.items() if entry.to_load and adapter not in self._loads]

    def _until_next(self, now: float) -> float | None:
        """Seconds until there is something to do that nobody wakes the loop for."""
        waiting = self._waiting()
        later = [entry.due - now for entry in waiting if entry.due > now]
        if len(later) < len(waiting):
            # Some wait for room: there is some when a load ends, or has become slow.
            later += [began + SLOW_SECONDS - now for _, began in self._loads.values() if began + SLOW_SECONDS > now]
        return min(later, default=None)

    async def _load(self, entry: Entry) -> None:
        adapter = entry.desired.id
        try:
            await self._attempt(entry)
            current = self._entries.get(adapter)
            if current is not entry and entry.artifact is not None:
                # The document changed while it loaded; at most its digest was added to it.
                if current is not None and entry.is_what(current.desired):
                    current.arrived(entry.artifact, entry.load_seconds or 0.0)
                else:
                    await self._loader.unload(adapter)
        finally:
            self._wake.set()

    async def _attempt(self, entry: Entry) -> None:
        adapter, started = entry.desired.id, self._clock()
        entry.attempts += 1
        try:
            artifact = await self._loader.load(entry.desired, self._store)
        except AdapterError as error:
            self._failed(entry, error.reason, error.message)
        except Exception as error:  # the loop's edge: one adapter must not keep the others from being loaded
            _log.exception("adapter %s could not be loaded", adapter)
            self._failed(entry, AdapterReason.LOAD_FAILED, f"{type(error).__name__}: {error}")
        else:
            entry.arrived(artifact, round(self._clock() - started, 4))
            _log.info("adapter resident", extra={"adapter": adapter, "seconds": entry.load_seconds})

    def _failed(self, entry: Entry, reason: AdapterReason, message: str) -> None:
        entry.failed(reason, message, self._clock())
        _log.warning("adapter failed", extra={"adapter": entry.desired.id, "reason": reason, "detail": message})


def _listed(names: list[AdapterId]) -> str:
    shown = ", ".join(names[:10])
    return f"{shown} and {len(names) - 10} more" if len(names) > 10 else shown or "none"
