"""Brings the base and the adapters into the engine: the only module that joins files, torch and the engine's thread."""

import asyncio
import dataclasses
import hashlib
import logging
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from motet_api.artifact.adapter import Artifact
from motet_api.artifact.footprint import held_bytes
from motet_api.identity import AdapterId, Digest
from motet_api.reasons import AdapterReason
from motet_api.wire import BaseDescription, DesiredAdapter
from motet_runtime.adapters.artifact import VerifiedAdapter, verify
from motet_runtime.adapters.flat_file import FlatAdapter
from motet_runtime.adapters.library import AdapterLibrary
from motet_runtime.adapters.sources import files_of, local_path
from motet_runtime.engine.lean_imports import without_collection
from motet_runtime.engine.pace import Pace
from motet_runtime.engine.plan import SlotLoad
from motet_runtime.engine.scheduler import Scheduler
from motet_runtime.engine.thread import EngineThread
from motet_runtime.errors import AdapterError, ModelError
from motet_runtime.generation import Generator
from motet_runtime.limits import usable_processors
from motet_runtime.metrics import RuntimeMetrics
from motet_runtime.service import Base
from motet_runtime.settings import Settings

_log = logging.getLogger(__name__)


class EngineHost:
    """Starts the engine's thread, which imports torch, loads the base and then runs the loop.

    `load` and `unload` make it the adapter loader of the residency.
    """

    def __init__(self, settings: Settings, metrics: RuntimeMetrics, started: float) -> None:
        self._settings = settings
        self._metrics = metrics
        self._started = started
        self._runner: Any = None
        self._library: AdapterLibrary | None = None
        self._sources: dict[AdapterId, tuple[DesiredAdapter, str]] = {}
        self._engine: EngineThread | None = None
        self._thread: threading.Thread | None = None
        self._loaded = asyncio.Event()

    async def start(self) -> Base:
        """Load the base and start the loop.

        Raises:
            ModelError: the base cannot be served.
        """
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Base] = loop.create_future()

        def settle(base: Base | None, error: BaseException | None) -> None:
            if not outcome.done():
                if base is None:
                    outcome.set_exception(error or ModelError("the engine ended before the base was loaded"))
                else:
                    outcome.set_result(base)

        def run() -> None:
            try:
                with without_collection():
                    base = self._load_base()
            except Exception as error:  # the thread's edge: handed over, and raised again by whoever waits
                loop.call_soon_threadsafe(settle, None, error)
                return
            loop.call_soon_threadsafe(settle, base, None)
            base.engine.loop()

        self._thread = threading.Thread(target=run, name="engine", daemon=True)
        self._thread.start()
        base = await outcome
        self._loaded.set()
        return base

    async def stop(self) -> None:
        """End the loop after the current step."""
        if self._engine and self._thread:
            self._engine.stop()
            await asyncio.to_thread(self._thread.join, 10)

    async def load(self, desired: DesiredAdapter, store: str) -> Artifact:
        """Fetch, verify and register one adapter, and begin to copy it into a slot if one is free.

        So the first request finds it there, or waits for the end of that copy and for nothing else. Where no slot is
        free none is taken from another adapter for one that nobody has asked for.

        Raises:
            AdapterError: it cannot be loaded.
        """
        await self._loaded.wait()
        assert self._library is not None
        assert self._engine is not None
        started = time.monotonic()
        try:
            verified = await self._fetch(desired, store)
            adapter = await asyncio.to_thread(self._library.register, desired.id, verified)
        except AdapterError as error:
            self._count_failure(error.reason)
            raise
        except OSError as error:
            # A file that cannot be read is as transient as a server that does not answer.
            self._count_failure(AdapterReason.FETCH_FAILED)
            message = f"{desired.uri} could not be read: {type(error).__name__}: {error}"
            raise AdapterError(AdapterReason.FETCH_FAILED, message) from error
        except Exception:
            # Counted here, where the metrics are; what to do about it is the residency's decision.
            self._count_failure(AdapterReason.LOAD_FAILED)
            raise
        self._sources[desired.id] = (desired, store)
        scheduler = self._engine.scheduler
        await self._between_steps(lambda: scheduler.prefetch(adapter))
        self._metrics.adapter_load_seconds.observe(time.monotonic() - started)
        held = held_bytes(verified.artifact.targets, self._runner.dtype.itemsize)
        return dataclasses.replace(verified.artifact, held_bytes=held)

    async def unload(self, adapter: AdapterId) -> None:
        """Free an adapter's weights."""
        assert self._library is not None
        assert self._engine is not None
        digest = self._library.remove(adapter)
        self._sources.pop(adapter, None)
        if digest is not None:
            engine = self._engine
            await self._between_steps(lambda: engine.forget_adapter(digest))

    async def _fetch(self, desired: DesiredAdapter, store: str) -> VerifiedAdapter:
        async with files_of(desired, store, self._settings.claim_root) as folder:
            runner, settings = self._runner, self._settings
            return await asyncio.to_thread(
                verify,
                folder,
                desired.digest,
                runner.shapes,
                hidden=runner.hidden_size,
                max_rank=settings.engine.max_rank,
            )

    def _copy_adapter(self, load: SlotLoad) -> None:
        """In the engine's copying thread."""
        assert self._library is not None
        digest = load.adapter.digest
        try:
            weights = self._library.weights(digest)
        except FileNotFoundError:
            weights = self._restored(self._library, digest)
        head = weights.head and (weights.head.weight, weights.head.bias)
        self._runner.write_adapter(digest, load.row, weights.modules, head)

    def _restored(self, library: AdapterLibrary, digest: Digest) -> FlatAdapter:
        """What the disk had to give up, from its source again, which must still be what was verified.

        Raises:
            AdapterError: no source has it any more.
        """
        failure = f"{digest} is loaded no more"
        same = [adapter.id for adapter in list(library.adapters.values()) if adapter.digest == digest]
        for desired, address in filter(None, map(self._sources.get, same)):
            _log.info("adapter is fetched again", extra={"adapter": desired.id, "uri": desired.uri})
            try:
                pinned = desired.model_copy(update={"digest": digest})
                return library.restore(asyncio.run(self._fetch(pinned, address)))
            except (AdapterError, OSError) as error:
                text = error.message if isinstance(error, AdapterError) else str(error)
                failure = (
                    f"its file had to leave the local disk, and {desired.uri} does not have what was loaded from it "
                    f"any more ({text}): put it back, or give it as a new version"
                )
        raise AdapterError(AdapterReason.FETCH_FAILED, failure)

    async def _between_steps(self, command: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def settle(error: Exception | None) -> None:
            if not done.done():
                done.set_result(None) if error is None else done.set_exception(error)

        def run() -> None:
            try:
                command()
            except Exception as error:  # handed over, and raised again by whoever waits
                loop.call_soon_threadsafe(settle, error)
            else:
                loop.call_soon_threadsafe(settle, None)

        assert self._engine is not None
        self._engine.call(run)
        await done

    def _load_base(self) -> Base:
        """In the engine's thread: torch is imported here, so that nothing else waits for it."""
        import torch

        from motet_runtime.adapters.flat_store import FlatStore
        from motet_runtime.engine.load_model import load_model
        from motet_runtime.engine.tokenizer import load_tokenizer

        self._stage("imports")
        torch.set_num_threads(self._settings.threads or usable_processors())
        settings = self._settings
        try:
            folder = local_path(settings.model, settings.claim_root)
        except AdapterError as error:
            raise ModelError(error.message) from error
        loaded = load_model(folder, settings.dtype, settings.engine, self._stage)
        runner = loaded.runner
        tokenizer = load_tokenizer(folder)
        self._stage("tokenizer")
        runner.warm_up()
        self._stage("warm-up")
        eos = runner.eos_ids | ({tokenizer.eos_token_id} - {None})
        scheduler = Scheduler(loaded.budgets, eos, Pace(settings.max_stretch, loaded.span))
        store = FlatStore(_writable(settings.adapter_cache, settings.model), runner.dtype, settings.adapter_disk_bytes)
        self._library = AdapterLibrary(store, settings.adapter_host_bytes, pin=runner.device.type == "cuda")
        self._runner = runner
        self._engine = EngineThread(
            scheduler,
            runner,
            time.monotonic,
            self._copy_adapter,
            self._observe_step,
            self._metrics.step_failures.inc,
        )
        self._metrics.follow(self._engine.gauges)
        longest = min(settings.engine.max_tokens or runner.max_positions, runner.max_positions)
        room = loaded.budgets.blocks * loaded.budgets.block_size
        if room < longest:
            message = "--kv-memory holds %d tokens: longer requests are refused, though the model allows %d"
            _log.warning(message, room, longest)
        return Base(
            generator=Generator(self._engine, tokenizer, self._library.adapters, runner.vocabulary),
            engine=self._engine,
            dtype=str(runner.dtype).removeprefix("torch."),
            device=runner.device.type,
            # An answer can be no longer than the KV cache, whatever the model allows.
            max_model_len=min(longest, room),
            description=BaseDescription(
                model=settings.model_name,
                hidden_size=runner.hidden_size,
                dtype_bytes=runner.dtype.itemsize,
                modules=dict(runner.shapes),
            ),
            library=self._library,
        )

    def _count_failure(self, reason: AdapterReason) -> None:
        self._metrics.adapter_load_failures.labels(reason).inc()

    def _observe_step(self, seconds: float, tokens: int) -> None:
        self._metrics.step_seconds.observe(seconds)
        self._metrics.step_tokens.inc(tokens)

    def _stage(self, name: str) -> None:
        seconds = round(time.time() - self._started, 3)
        self._metrics.startup_seconds.labels(name).set(seconds)
        cpu = round(time.process_time(), 3)
        _log.info("stage done", extra={"stage": name, "seconds_since_start": seconds, "cpu_seconds": cpu})


def _writable(folder: Path, model: str) -> Path:
    """The folder for this base's adapter files: below the given one, or in scratch space if that cannot be written."""
    name = hashlib.sha256(model.encode()).hexdigest()[:16]
    try:
        (folder / name).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder / name):
            return folder / name
    except OSError:
        return Path(tempfile.gettempdir()) / "motet-adapters" / name
