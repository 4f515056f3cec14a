"""Where the metrics API is put together."""

import argparse
import asyncio
import logging
import signal
import time
from datetime import UTC, datetime

import aiohttp
from aiohttp import web
from kubernetes.aio import client
from prometheus_client import CollectorRegistry, ProcessCollector

from motet_operator.errors import OperatorError
from motet_operator.kube.cluster import Cluster
from motet_operator.kube.connection import connect
from motet_operator.metrics import ApiMetrics
from motet_operator.metrics_api.authorization import Authorizer
from motet_operator.metrics_api.demand import DemandBook
from motet_operator.metrics_api.gateways import DemandPoller
from motet_operator.metrics_api.listener import Listener
from motet_operator.metrics_api.routes import MetricsApi
from motet_operator.running.probes import make_metrics_page, serving

log = logging.getLogger(__name__)

_OPEN_AGAIN_SECONDS = 2.0


async def serve(options: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    connection = await connect(options.kubeconfig)
    async with client.ApiClient(connection) as api, aiohttp.ClientSession() as session:
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        cluster = Cluster(api, ApiMetrics(registry))
        book = DemandBook(options.max_age_seconds)
        poller = DemandPoller(cluster, session, options.gateway_service, book, _now, asyncio.sleep)
        listener = Listener(cluster, options.tls_cert, options.tls_key, options.port)
        metrics_api = MetricsApi(book, Authorizer(cluster, time.monotonic), listener.trust, _now)
        runner = web.AppRunner(metrics_api.application(), access_log=None)
        await runner.setup()
        try:
            async with serving(make_metrics_page(registry), options.metrics_port), asyncio.TaskGroup() as group:
                background = [
                    group.create_task(poller.run()),
                    group.create_task(_listen(listener, runner)),
                ]
                await stop.wait()
                for task in background:
                    task.cancel()
        finally:
            await runner.cleanup()


async def _listen(listener: Listener, runner: web.AppRunner) -> None:
    """Open the port as soon as the API server tells whom to trust; then follow what changes."""
    while True:
        try:
            await listener.refresh(runner)
            break
        except OperatorError as error:
            log.warning("the authority of the API server cannot be read yet: %s", error)
        await asyncio.sleep(_OPEN_AGAIN_SECONDS)
    await listener.run(runner, asyncio.sleep)


def _now() -> datetime:
    return datetime.now(UTC)
