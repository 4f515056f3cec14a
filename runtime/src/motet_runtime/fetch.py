"""`motet-runtime fetch`: an artifact from the store into a folder, before a pod or on a node. Imports no torch.

Exit code 0: the folder is complete. 1: it cannot be, or the store stayed away for longer than is waited for it.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from motet_runtime.errors import AdapterError, FolderError
from motet_runtime.settings import FetchSettings
from motet_runtime.store.client import StoreClient, store_session
from motet_runtime.store.folder import fill, held_bytes, is_complete, locked

_log = logging.getLogger(__name__)
_PAUSE_SECONDS: Final = 2.0


def run_fetch(settings: FetchSettings) -> int:
    """Fetch, unless it is there; returns the exit code."""
    try:
        if is_complete(settings.folder, settings.digest):
            _log.info("already complete", extra={"folder": str(settings.folder)})
            return 0
        with locked(settings.folder):
            asyncio.run(_fetch(settings))
    except (AdapterError, FolderError, OSError) as error:
        _log.error("%s could not be fetched: %s", settings.digest, error)
        return 1
    _log.info("complete", extra={"folder": str(settings.folder)})
    return 0


async def _fetch(
    settings: FetchSettings,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Try until it is there, or has failed for good.

    Raises:
        AdapterError: it has.
        FolderError: likewise.
    """
    seen, since = -1, clock()
    async with store_session() as session:
        client = StoreClient(session, settings.store)
        while True:
            try:
                await fill(settings.folder, settings.digest, client)
                return
            except AdapterError as error:
                held = held_bytes(settings.folder)
                if held > seen:
                    seen, since = held, clock()
                if not error.reason.transient or clock() - since >= settings.patience_seconds:
                    raise
                _log.warning("not yet: %s", error.message)
            await sleep(_PAUSE_SECONDS)
