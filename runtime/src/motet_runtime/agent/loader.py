"""Brings adapters into the engine: files into a folder named by their digest, which the engine then loads.

Invariant: an adapter's folder is named by its content digest and complete before the engine hears of it, so what the
engine says it has (name and folder) says which bytes it has. A name that it holds from another folder is other bytes,
and leaves before the right ones are loaded; "already loaded" is never taken for success.
"""

import asyncio
import contextlib
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Protocol

from motet_api.artifact.adapter import Artifact
from motet_api.identity import ADAPTER_FILES, AdapterId, Digest
from motet_api.reasons import AdapterReason
from motet_api.wire import BaseDescription, DesiredAdapter
from motet_runtime.adapters.artifact import check_files, verify
from motet_runtime.adapters.sources import files_of
from motet_runtime.agent.engine_client import EngineRefusedError, EngineSilentError
from motet_runtime.errors import AdapterError

_log = logging.getLogger(__name__)


class Engine(Protocol):
    """The engine's adapters."""

    async def adapters(self) -> dict[AdapterId, str]:
        """The folder of each. Raises: EngineSilentError."""
        ...

    async def load(self, adapter: AdapterId, folder: str) -> None:
        """Load one. Raises: EngineRefusedError, EngineSilentError."""
        ...

    async def unload(self, adapter: AdapterId) -> None:
        """Unload one. Raises: EngineRefusedError, EngineSilentError."""
        ...


class EngineLoader:
    """The residency's loader. `cache` is a folder that the engine sees under the same path.

    `base` is None where the base's files are not to be seen: then shapes are not checked, and vLLM does not do it.
    """

    def __init__(
        self, engine: Engine, base: BaseDescription | None, cache: Path, claim_root: Path, max_rank: int
    ) -> None:
        self._engine = engine
        self._base = base
        self._cache = cache
        self._claim_root = claim_root
        self._max_rank = max_rank
        self._digests: dict[AdapterId, Digest] = {}
        self._placing = asyncio.Lock()
        """Sources are fetched side by side; a folder is made and taken away by one at a time, with what the engine is
        told of it."""

    async def load(self, desired: DesiredAdapter, store: str) -> Artifact:
        """Fetch, verify and load.

        Raises:
            AdapterError: it cannot be loaded.
        """
        try:
            async with files_of(desired, store, self._claim_root) as source, self._placing:
                folder, artifact = await asyncio.to_thread(self._placed, source, desired.digest)
                await self._install(desired.id, folder, artifact)
        except OSError as error:
            message = f"{desired.uri} could not be read: {type(error).__name__}: {error}"
            raise AdapterError(AdapterReason.FETCH_FAILED, message) from error
        return artifact

    async def _install(self, adapter: AdapterId, folder: Path, artifact: Artifact) -> None:
        if artifact.invocation or artifact.head:
            form = "an activated LoRA" if artifact.invocation else "a classification head"
            raise AdapterError(AdapterReason.UNSUPPORTED, f"it is {form}; vLLM serves plain LoRAs only")
        try:
            await self._give(adapter, str(folder))
        except EngineSilentError as error:
            raise AdapterError(AdapterReason.LOAD_FAILED, f"the engine did not answer: {error}") from error
        except EngineRefusedError as error:
            raise AdapterError(AdapterReason.BASE_MISMATCH, f"the engine refuses it: {error}") from error
        self._digests[adapter] = artifact.digest

    async def unload(self, adapter: AdapterId) -> None:
        """Take it out of the engine, and its files away unless another adapter has the same."""
        async with self._placing:
            await self._remove(adapter)

    async def _remove(self, adapter: AdapterId) -> None:
        try:
            await self._engine.unload(adapter)
        except (EngineSilentError, EngineRefusedError) as error:
            # Nobody is routed to it any more. If the engine lives, its name goes with its next loading or restart.
            _log.warning("adapter was not unloaded", extra={"adapter": adapter, "detail": str(error)})
        digest = self._digests.pop(adapter, None)
        if digest is not None and digest not in self._digests.values():
            await asyncio.to_thread(shutil.rmtree, self._folder(digest), ignore_errors=True)

    async def _give(self, adapter: AdapterId, folder: str) -> None:
        held = (await self._engine.adapters()).get(adapter)
        if held == folder:
            return
        if held is not None:
            await self._engine.unload(adapter)
        await self._engine.load(adapter, folder)

    def _placed(self, source: Path, wanted: Digest | None) -> tuple[Path, Artifact]:
        """The adapter in a folder of its own: what is verified is the copy that the engine will read."""
        self._cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._cache, prefix=".new-") as scratch:
            copy = Path(scratch) / "adapter"
            check_files(source)
            copy.mkdir()
            for name in ADAPTER_FILES:
                shutil.copyfile(source / name, copy / name)
            base = self._base
            shapes, hidden = (base.modules, base.hidden_size) if base is not None else (None, None)
            artifact = verify(copy, wanted, shapes, hidden=hidden, max_rank=self._max_rank).artifact
            folder = self._folder(artifact.digest)
            with contextlib.suppress(FileExistsError):
                if not folder.exists():
                    copy.rename(folder)
        return folder, artifact

    def _folder(self, digest: Digest) -> Path:
        return self._cache / digest.replace(":", "-")
