"""`motet-runtime`: the command line, and the only place where the parts are put together."""

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry

from motet_runtime.adapters.artifact import folder_digest
from motet_runtime.adapters.residency import Residency
from motet_runtime.errors import AdapterError, ModelError
from motet_runtime.fetch import run_fetch
from motet_runtime.http.app import make_apps
from motet_runtime.http.listeners import listening
from motet_runtime.lifecycle import Lifecycle
from motet_runtime.loading import EngineHost
from motet_runtime.logs import configure_logging
from motet_runtime.metrics import RuntimeMetrics
from motet_runtime.options import fetch_settings_of, parse_options, settings_of
from motet_runtime.service import Service
from motet_runtime.settings import Settings

_log = logging.getLogger(__name__)


async def serve(settings: Settings, started: float) -> int:
    """Serve until SIGTERM or SIGINT, then drain; returns the exit code. `started`: process start, Unix seconds."""
    metrics = RuntimeMetrics(CollectorRegistry())
    lifecycle = Lifecycle(time.monotonic)
    host = EngineHost(settings, metrics, started)
    residency = Residency(host, time.monotonic)
    service = Service(settings, residency, lifecycle, metrics)
    serving, admin = make_apps(service)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with listening([(serving, settings.port), (admin, settings.admin_port)], settings.host):
        _log.info("listening", extra={"port": settings.port, "admin_port": settings.admin_port})
        starting = asyncio.create_task(host.start())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            return 0
        try:
            service.base_loaded(starting.result())
        except ModelError as error:
            _log.error("the base model cannot be served: %s", error)
            return 1
        except Exception:  # the process's edge: said in the log's own form before it ends
            _log.exception("the base model could not be loaded")
            return 1
        _log.info("base loaded", extra={"seconds_since_start": round(time.time() - started, 3)})
        reconciling = asyncio.create_task(residency.run())
        await asyncio.wait({reconciling, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if reconciling.done():
            reconciling.result()
        _log.info("draining", extra={"in_flight": lifecycle.in_flight})
        finished = await lifecycle.drain(settings.drain_grace_seconds, settings.drain_timeout_seconds)
        reconciling.cancel()
        _log.info("drained", extra={"finished": finished})
    await host.stop()
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    options = parse_options(arguments)
    if options.command == "digest":
        try:
            print(folder_digest(options.folder))
        except AdapterError as error:
            print(f"motet-runtime: {error.message}", file=sys.stderr)
            return 1
        return 0
    configure_logging(options.log_level)
    if options.command == "fetch":
        return run_fetch(fetch_settings_of(options))
    if options.command == "agent":
        from motet_runtime.agent.main import run_agent

        return asyncio.run(run_agent(options))
    return asyncio.run(serve(settings_of(options), _process_start()))


def _process_start() -> float:
    """When this process started, in Unix seconds: interpreter start and imports count as start-up too."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK")
