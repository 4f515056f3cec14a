"""Brings the base and the adapters into the engine: the only module that joins files, torch and the engine's thread."""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from motet_api.identity import ADAPTER_FILES, AdapterId
from motet_api.reasons import AdapterReason
from motet_api.wire import DesiredAdapter
from motet_runtime.adapters.artifact import Artifact, verify
from motet_runtime.adapters.sources import local_path, opened
from motet_runtime.engine.scheduler import Scheduler
from motet_runtime.engine.thread import EngineThread
from motet_runtime.errors import AdapterError, ModelError
from motet_runtime.generation import Generator
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

    async def load(self, desired: DesiredAdapter) -> Artifact:
        """Fetch, verify and install one adapter.

        Raises:
            AdapterError: it cannot be loaded.
        """
        await self._loaded.wait()
        started = time.monotonic()
        try:
            async with opened(desired.uri, self._settings.claim_root) as folder:
                stamps = await asyncio.to_thread(_stamps, folder)
                shapes, rank = self._runner.lora.shapes, self._settings.max_rank
                artifact = await asyncio.to_thread(verify, folder, desired.digest, shapes, rank)
                weights = await asyncio.to_thread(self._read, artifact)
                if await asyncio.to_thread(_stamps, folder) != stamps:
                    raise AdapterError(AdapterReason.FETCH_FAILED, f"{desired.uri} changed while it was read")
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
        await self._between_steps(lambda: self._runner.lora.install(desired.id, weights))
        self._metrics.adapter_load_seconds.observe(time.monotonic() - started)
        return artifact

    async def unload(self, adapter: AdapterId) -> None:
        """Free an adapter's weights."""
        await self._between_steps(lambda: self._runner.lora.remove(adapter))

    async def _between_steps(self, command: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def run() -> None:
            command()
            loop.call_soon_threadsafe(done.set)

        assert self._engine is not None
        self._engine.call(run)
        await done.wait()

    def _read(self, artifact: Artifact) -> Any:
        from motet_runtime.engine.lora import read_weights

        return read_weights(artifact, self._runner.dtype, self._runner.device)

    def _load_base(self) -> Base:
        """In the engine's thread: torch is imported here, so that nothing else waits for it."""
        import torch
        from transformers import AutoTokenizer

        from motet_runtime.engine.model import load_model

        self._stage("imports")
        torch.set_num_threads(self._settings.threads or usable_processors())
        try:
            folder = local_path(self._settings.model, self._settings.claim_root)
        except AdapterError as error:
            raise ModelError(error.message) from error
        runner = load_model(folder, self._settings.dtype, self._stage)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._stage("tokenizer")
        runner.warm_up()
        self._stage("warm-up")
        eos = runner.eos_ids | ({tokenizer.eos_token_id} - {None})
        scheduler = Scheduler(self._settings.max_batch_size, self._settings.max_step_tokens, eos)
        self._engine = EngineThread(
            scheduler, runner, time.monotonic, self._observe_step, self._metrics.step_failures.inc
        )
        self._runner = runner
        return Base(
            generator=Generator(self._engine, tokenizer),
            engine=self._engine,
            dtype=str(runner.dtype),
            device=runner.device.type,
            max_model_len=min(self._settings.max_model_len or runner.max_positions, runner.max_positions),
        )

    def _count_failure(self, reason: AdapterReason) -> None:
        self._metrics.adapter_load_failures.labels(reason).inc()

    def _observe_step(self, seconds: float, tokens: int) -> None:
        self._metrics.step_seconds.observe(seconds)
        self._metrics.step_tokens.inc(tokens)

    def _stage(self, name: str) -> None:
        seconds = round(time.time() - self._started, 3)
        self._metrics.startup_seconds.labels(name).set(seconds)
        _log.info("stage done", extra={"stage": name, "seconds_since_start": seconds})


def _stamps(folder: Path) -> list[tuple[int, int, int] | None]:
    """What changes when somebody writes to an adapter's files: what was verified must be what is then read."""
    found = [folder / name for name in ADAPTER_FILES]
    stats = [path.stat() if path.is_file() else None for path in found]
    return [stat and (stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in stats]
