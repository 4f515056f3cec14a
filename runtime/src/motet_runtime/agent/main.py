"""`motet-runtime agent`: where the agent is put together."""

import argparse
import asyncio
import logging
import signal
import time

import aiohttp
from prometheus_client import CollectorRegistry, Gauge

from motet_runtime.adapters.residency import Residency
from motet_runtime.adapters.sources import local_path
from motet_runtime.agent.base_shapes import describe_base
from motet_runtime.agent.engine_client import EngineClient
from motet_runtime.agent.loader import EngineLoader
from motet_runtime.agent.routes import make_apps
from motet_runtime.agent.sidecar import Sidecar
from motet_runtime.errors import AdapterError, ModelError
from motet_runtime.http.listeners import listening
from motet_runtime.lifecycle import Lifecycle

_log = logging.getLogger(__name__)


async def run_agent(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code."""
    registry = CollectorRegistry()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        base = (
            describe_base(local_path(options.model, options.claim_root), options.model_name) if options.model else None
        )
    except (AdapterError, ModelError) as error:
        _log.error("adapters cannot be checked against the base: %s", error)
        return 1
    async with aiohttp.ClientSession() as session:
        engine = EngineClient(session, options.engine_url)
        loader = EngineLoader(engine, base, options.adapter_cache, options.claim_root, options.max_rank)
        residency = Residency(loader, time.monotonic)
        lifecycle = Lifecycle(time.monotonic)
        sidecar = Sidecar(options.model_name, base, options.max_batch_size, engine, residency, lifecycle)
        resident = Gauge("motet_runtime_adapters_resident", "Adapters that can be served.", registry=registry)
        resident.set_function(lambda: len(residency.resident()))
        admin, report = make_apps(sidecar, registry)
        async with listening([(admin, options.admin_port), (report, options.report_port)], options.host):
            _log.info("listening", extra={"admin_port": options.admin_port, "engine": options.engine_url})
            working = [asyncio.create_task(sidecar.watch()), asyncio.create_task(residency.run())]
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({*working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            for task in working:
                if task.done():
                    task.result()
            _log.info("draining")
            # The engine drains by itself; what is left to do here is to say that nobody should route to this pod.
            await lifecycle.drain(options.drain_grace_seconds, 0)
            for task in working:
                task.cancel()
    return 0
