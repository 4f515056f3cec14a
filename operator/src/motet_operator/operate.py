"""Where the operator is put together."""

import argparse
import asyncio
import logging
import random
import signal
import time
from datetime import UTC, datetime

import aiohttp
from kubernetes.aio import client
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector

from motet_operator.act import Actor
from motet_operator.applied import AppliedMemory
from motet_operator.cluster import Cluster
from motet_operator.connection import connect
from motet_operator.errors import OperatorError
from motet_operator.index import Index
from motet_operator.installation_options import installation_of
from motet_operator.keys import ModelKey
from motet_operator.metrics import Metrics
from motet_operator.observe import Observer
from motet_operator.probes import make_metrics_page, make_probes, serving
from motet_operator.queue import WorkQueue
from motet_operator.reconciler import Reconciler
from motet_operator.report import Reporter
from motet_operator.resync import Resync
from motet_operator.runtime_client import RuntimeClient
from motet_operator.store_client import StoreClient
from motet_operator.wiring import watch

log = logging.getLogger(__name__)

WORKERS = 16
_PRIME_AGAIN_SECONDS = 2.0


async def operate(options: argparse.Namespace) -> None:
    """Run the operator until SIGTERM or SIGINT."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    metrics = Metrics(registry)
    installation = installation_of(options)
    connection = await connect(options.kubeconfig)
    async with client.ApiClient(connection) as api, aiohttp.ClientSession() as session:
        cluster = Cluster(api, metrics, options.namespace)
        index, applied = Index(), AppliedMemory()
        runtime = RuntimeClient(session, metrics)
        store = StoreClient(session, installation.store) if installation.store else None
        reconciler = Reconciler(
            Observer(index, cluster, runtime, applied, installation, store),
            Actor(cluster, runtime, index, applied),
            Reporter(cluster, index),
            installation,
            lambda: datetime.now(UTC),
        )
        # The jitter spreads load and keeps no secret.
        queue: WorkQueue[ModelKey] = WorkQueue(
            reconciler.reconcile, metrics, time.monotonic, asyncio.sleep, random.random
        )
        metrics.measure_depth(lambda: queue.depth)
        resync = Resync(cluster, index, queue.wake, asyncio.sleep)
        started = asyncio.Event()
        probes = make_probes(queue.longest_pass_seconds, started.is_set)
        async with (
            serving(probes, options.health_port),
            serving(make_metrics_page(registry), options.metrics_port),
        ):
            await prime(resync)
            async with asyncio.TaskGroup() as group:
                background = [
                    group.create_task(queue.run(WORKERS)),
                    group.create_task(resync.run(options.resync_seconds)),
                ]
                watching = group.create_task(watch(connection, index, queue.wake, options.namespace, started))
                group.create_task(stop_on_signal(watching, started))
                await asyncio.wait([watching])
                for task in background:
                    task.cancel()


async def stop_on_signal(watching: asyncio.Task[None], started: asyncio.Event) -> None:
    """Take signals over from kopf, which at its end would wait for tasks that are ours and go on for ever."""
    await started.wait()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, watching.cancel)


async def prime(resync: Resync) -> None:
    """List everything, however long it takes the API server (or whoever grants the rights) to let us."""
    while True:
        try:
            return await resync.prime()
        except OperatorError as error:
            log.warning("objects cannot be listed yet: %s", error)
        await asyncio.sleep(_PRIME_AGAIN_SECONDS)
