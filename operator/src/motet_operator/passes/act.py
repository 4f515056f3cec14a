"""Act: carry out a decision's actions. What the API server refuses is an outcome to be reported, not an error."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Protocol

from motet_api.wire import AdaptersReport, DesiredAdapters
from motet_operator.errors import RefusedError, SilentPodError
from motet_operator.keys import Kind, ModelKey
from motet_operator.kube.index import Index
from motet_operator.models.resources import Manifest, digest
from motet_operator.passes.applied import AppliedMemory
from motet_operator.passes.decide import Action, Apply, Delete, Tell
from motet_operator.snapshot import Applied
from motet_operator.views import ChildView, read

log = logging.getLogger(__name__)


class ObjectWriter(Protocol):
    """Writes and removes objects."""

    async def apply(self, kind: Kind, manifest: Manifest) -> dict[str, Any]:
        """Make an object what the manifest says; returns it. Raises: RefusedError, UnavailableError."""
        ...

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        """Remove it. Raises: UnavailableError, RefusedError."""
        ...


class PodTeller(Protocol):
    """Tells a pod what it must hold."""

    async def tell(self, ip: str, document: DesiredAdapters) -> AdaptersReport:
        """Returns what it holds now. Raises: SilentPodError."""
        ...


class Actor:
    """Carries out actions."""

    def __init__(self, writer: ObjectWriter, teller: PodTeller, index: Index, applied: AppliedMemory) -> None:
        self._writer = writer
        self._teller = teller
        self._index = index
        self._applied = applied

    async def act(self, key: ModelKey, actions: Sequence[Action]) -> dict[Kind, str]:
        """Pods at once, children one after the other; returns what was refused, and why, by kind.

        Raises:
            UnavailableError: the API server did not answer; the pass is to be made again.
        """
        refused: dict[Kind, str] = {}
        telling = asyncio.gather(*(self._tell(key, action) for action in actions if isinstance(action, Tell)))
        try:
            for action in actions:
                if isinstance(action, Tell):
                    continue
                try:
                    await (self._apply(key, action) if isinstance(action, Apply) else self._delete(key, action))
                except RefusedError as error:
                    log.warning("%s: %s refused: %s", key, action.kind, error)
                    refused[action.kind] = str(error)
        finally:
            await telling
        return refused

    async def _apply(self, key: ModelKey, action: Apply) -> None:
        log.info("%s: applying %s: %s", key, action.kind, action.why)
        raw = await self._writer.apply(action.kind, action.manifest)
        view = read(action.kind, raw)
        if isinstance(view, ChildView):
            self._applied.remember(key, action.kind, Applied(digest(action.manifest), view.child.owned_fields))
        self._index.put(action.kind, raw)

    async def _delete(self, key: ModelKey, action: Delete) -> None:
        log.info("%s: deleting %s: %s", key, action.kind, action.why)
        await self._writer.delete(action.kind, key.namespace, action.name, action.uid)

    async def _tell(self, key: ModelKey, action: Tell) -> None:
        count = len(action.document.adapters)
        log.info("%s: telling pod %s its %d adapters: %s", key, action.pod, count, action.why)
        try:
            await self._teller.tell(action.ip, action.document)
        except SilentPodError as error:
            # Said in the status by the next pass, if it is still so then.
            log.warning("%s: pod %s was not told: %s", key, action.pod, error)
