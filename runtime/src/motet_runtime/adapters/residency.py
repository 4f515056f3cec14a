"""Makes the resident adapters equal to the desired ones, one load at a time, beside the running batch.

Invariant: an id is installed with the source it was verified from, and with no other until it has been drained and
removed. A desired id whose source changed is another adapter: the old one drains first. What is resident depends on the
last document only, not on how it was arrived at.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from motet_api.artifact.adapter import Artifact
from motet_api.errors import ErrorCode
from motet_api.identity import AdapterId
from motet_api.reasons import AdapterReason
from motet_api.wire import AdapterReport, DesiredAdapter, DesiredAdapters
from motet_runtime.errors import AdapterError, RequestError

_log = logging.getLogger(__name__)
_FIRST_RETRY: Final = 1.0
_LAST_RETRY: Final = 30.0
PATIENCE: Final = 4
"""Attempts (7 s of waiting in all) that a pod which was never ready gives a failure that time may heal."""
_RECHECK: Final = 60.0
"""Bytes that were wrong are looked at again this often: somebody may have put the right ones in their place."""


class AdapterLoader(Protocol):
    """Brings adapters into the engine and out of it."""

    async def load(self, desired: DesiredAdapter) -> Artifact:
        """Fetch, verify and install.

        Raises:
            AdapterError: it cannot be loaded.
        """
        ...

    async def unload(self, adapter: AdapterId) -> None:
        """Free its weights; nothing uses them any more."""
        ...


@dataclass(slots=True)
class _Entry:
    desired: DesiredAdapter
    reason: AdapterReason = AdapterReason.LOADING
    message: str = ""
    artifact: Artifact | None = None
    in_flight: int = 0
    attempts: int = 0
    due: float = 0.0
    load_seconds: float | None = None


class Residency:
    """The adapters of one pod. Used from the event loop only. `clock` is monotonic seconds."""

    def __init__(self, loader: AdapterLoader, clock: Callable[[], float]) -> None:
        self._loader = loader
        self._clock = clock
        self._desired: dict[AdapterId, DesiredAdapter] | None = None
        self._entries: dict[AdapterId, _Entry] = {}
        self._wake = asyncio.Event()

    @property
    def desired_known(self) -> bool:
        """Whether any document has arrived."""
        return self._desired is not None

    def set_desired(self, document: DesiredAdapters) -> None:
        """Take in a document: the whole set, every time."""
        self._desired = {adapter.id: adapter for adapter in document.adapters}
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
        """Whether every desired adapter is resident, or has failed: for good, or `PATIENCE` times.

        A new pod waits a while for a source that does not answer, but not for ever: one wrong path would otherwise keep
        every new pod of a model away from the adapters that are well.
        """
        return self._desired is not None and all(
            (entry := self._entries.get(adapter)) is not None and entry.desired == wanted and _is_settled(entry)
            for adapter, wanted in self._desired.items()
        )

    def report(self) -> list[AdapterReport]:
        """What is to be said of each adapter."""
        return [_report(entry) for _, entry in sorted(self._entries.items())]

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

    def resolve(self, name: str) -> AdapterId:
        """The resident adapter that a request names, by `name@version` or, if it is the only version, by `name`.

        Raises:
            RequestError: there is none; the message says what there is.
        """
        if "@" in name:
            return self._resolve_id(AdapterId(name))
        versions = [adapter for adapter in self.resident() if adapter.partition("@")[0] == name]
        if len(versions) == 1:
            return versions[0]
        if versions:
            raise RequestError(
                ErrorCode.MODEL_AMBIGUOUS, f"{name!r} has several versions: name one of {_listed(versions)}"
            )
        raise self._unknown(name)

    async def run(self) -> None:
        """Reconcile for ever."""
        while True:
            self._wake.clear()
            self._mark()
            await self._unload_drained()
            entry = self._next_due()
            if entry is not None:
                await self._load(entry)
                continue
            delay = min((entry.due - self._clock() for entry in self._loading()), default=None)
            try:
                async with asyncio.timeout(delay):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _resolve_id(self, adapter: AdapterId) -> AdapterId:
        entry = self._entries.get(adapter)
        if entry is None or entry.reason is AdapterReason.DRAINING:
            raise self._unknown(adapter)
        if entry.reason is not AdapterReason.RESIDENT:
            detail = f": {entry.message}" if entry.message else ""
            raise RequestError(ErrorCode.ADAPTER_NOT_READY, f"{adapter} is not resident ({entry.reason}){detail}")
        return adapter

    def _unknown(self, name: str) -> RequestError:
        base = name.partition("@")[0]
        versions = [adapter for adapter in self.resident() if adapter.partition("@")[0] == base]
        if versions:
            return RequestError(
                ErrorCode.VERSION_NOT_FOUND, f"{name!r} is not served here; {base} has {_listed(versions)}"
            )
        return RequestError(
            ErrorCode.ADAPTER_NOT_FOUND, f"adapter {name!r} is not served here; resident are {_listed(self.resident())}"
        )

    def _mark(self) -> None:
        desired = self._desired or {}
        for adapter, entry in list(self._entries.items()):
            if desired.get(adapter) == entry.desired:
                if entry.reason is AdapterReason.DRAINING:
                    entry.reason, entry.message = AdapterReason.RESIDENT, ""
            elif entry.reason in (AdapterReason.RESIDENT, AdapterReason.DRAINING):
                entry.reason = AdapterReason.DRAINING
                entry.message = f"no longer desired; {entry.in_flight} requests in flight"
            else:
                del self._entries[adapter]
        for adapter, wanted in desired.items():
            self._entries.setdefault(adapter, _Entry(wanted))

    async def _unload_drained(self) -> None:
        drained = [
            adapter
            for adapter, entry in self._entries.items()
            if entry.reason is AdapterReason.DRAINING and entry.in_flight == 0
        ]
        for adapter in drained:
            # Forgotten first: wanted again from here on, it is loaded anew and not served from what is being freed.
            del self._entries[adapter]
            await self._loader.unload(adapter)
            _log.info("adapter unloaded", extra={"adapter": adapter})
        if drained:
            self._mark()

    def _loading(self) -> list[_Entry]:
        steps = (AdapterReason.RESIDENT, AdapterReason.DRAINING)
        return [entry for entry in self._entries.values() if entry.reason not in steps]

    def _next_due(self) -> _Entry | None:
        now = self._clock()
        due = [entry for entry in self._loading() if entry.due <= now]
        return min(due, key=lambda entry: (entry.attempts, entry.due), default=None)

    async def _load(self, entry: _Entry) -> None:
        adapter, started = entry.desired.id, self._clock()
        entry.attempts += 1
        try:
            entry.artifact = await self._loader.load(entry.desired)
        except AdapterError as error:
            self._failed(entry, error.reason, error.message)
            return
        except Exception as error:  # the loop's edge: one adapter must not keep the others from being loaded
            _log.exception("adapter %s could not be loaded", adapter)
            self._failed(entry, AdapterReason.LOAD_FAILED, f"{type(error).__name__}: {error}")
            return
        entry.load_seconds = round(self._clock() - started, 4)
        entry.reason, entry.message = AdapterReason.RESIDENT, ""
        _log.info("adapter resident", extra={"adapter": adapter, "seconds": entry.load_seconds})
        if self._entries.get(adapter) is not entry:
            # The document changed while it loaded.
            await self._loader.unload(adapter)

    def _failed(self, entry: _Entry, reason: AdapterReason, message: str) -> None:
        entry.reason, entry.message = reason, message
        backoff = min(_FIRST_RETRY * 2.0 ** min(entry.attempts - 1, 16), _LAST_RETRY)
        entry.due = self._clock() + (backoff if reason.transient else _RECHECK)
        _log.warning("adapter failed", extra={"adapter": entry.desired.id, "reason": reason, "detail": message})


def _is_settled(entry: _Entry) -> bool:
    if entry.reason.failed:
        return not entry.reason.transient or entry.attempts >= PATIENCE
    return entry.reason is AdapterReason.RESIDENT


def _report(entry: _Entry) -> AdapterReport:
    artifact = entry.artifact
    return AdapterReport(
        id=entry.desired.id,
        reason=entry.reason,
        message=entry.message,
        uri=entry.desired.uri,
        desired_digest=entry.desired.digest,
        digest=artifact and artifact.digest,
        rank=artifact and artifact.rank,
        size_bytes=artifact and artifact.size_bytes,
        target_modules=artifact.target_names if artifact else [],
        in_flight=entry.in_flight,
        load_seconds=entry.load_seconds,
    )


def _listed(names: list[AdapterId]) -> str:
    shown = ", ".join(names[:10])
    return f"{shown} and {len(names) - 10} more" if len(names) > 10 else shown or "none"
