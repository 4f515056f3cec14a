"""Where the operator is put together."""

import argparse
import asyncio
import logging
import random
import signal
import socket
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
from kubernetes.aio import client
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector

from motet_operator.clients.artifacts import ArtifactBook
from motet_operator.clients.outcomes import OutcomesClient
from motet_operator.clients.references import ReferenceLoop
from motet_operator.clients.runtime_client import RuntimeClient
from motet_operator.clients.store_client import StoreClient
from motet_operator.errors import OperatorError, WatchesEndedError
from motet_operator.installation_options import installation_of
from motet_operator.keys import RESOURCES, Kind, ModelKey, seen_kinds
from motet_operator.kube.cluster import Cluster
from motet_operator.kube.connection import connect
from motet_operator.kube.index import Index
from motet_operator.kube.rate import RateLimit
from motet_operator.kube.resync import Resync
from motet_operator.kube.wiring import watch
from motet_operator.metrics import Metrics
from motet_operator.passes.act import Actor
from motet_operator.passes.applied import AppliedMemory
from motet_operator.passes.observe import Observer, Witnesses
from motet_operator.passes.patience import Patience
from motet_operator.passes.reconciler import Reconciler
from motet_operator.passes.report import Reporter
from motet_operator.policy_source import PolicySource
from motet_operator.running.condition_metrics import ConditionCollector
from motet_operator.running.debug_page import make_debug_page
from motet_operator.running.election import Alone, Election, Leadership
from motet_operator.running.journal import Journal
from motet_operator.running.lease import LeaseName
from motet_operator.running.probes import make_metrics_page, make_probes, serving
from motet_operator.running.queue import WorkQueue

log = logging.getLogger(__name__)

WORKERS = 16
DRAIN_SECONDS = 10.0
LEASE_CALL_SECONDS = 3.0
BY_RESOURCE = {resource.plural: kind for kind, resource in RESOURCES.items()}
_PRIME_AGAIN_SECONDS = 2.0


async def operate(options: argparse.Namespace) -> None:
    """Run the operator until SIGTERM or SIGINT."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    metrics = Metrics(registry)
    installation = installation_of(options)
    policy = open_policy(options.policy)
    connection = await connect(options.kubeconfig)
    async with client.ApiClient(connection) as api, aiohttp.ClientSession() as session:
        leadership = make_leadership(options.lease, api, metrics)
        turns = RateLimit(options.api_qps, options.api_burst, time.monotonic, asyncio.sleep)
        cluster = Cluster(api, metrics, options.namespace, turns, leadership.leads)
        index, applied, journal = Index(), AppliedMemory(), Journal(now)

        def wake(key: ModelKey) -> None:
            queue.wake(key)

        runtime = RuntimeClient(session, metrics, may_act=leadership.leads)
        store_url = options.store_admin_url or installation.store
        store = StoreClient(session, store_url) if store_url else None
        witnesses = Witnesses(
            artifacts=ArtifactBook(store, runtime, time.monotonic) if store is not None else None,
            gateways=OutcomesClient(cluster, session, options.gateway_service, time.monotonic)
            if options.gateway_service
            else None,
            policy=lambda: policy.current,
            sees_namespaces=not options.namespace,
            now=now,
        )
        reconciler = Reconciler(
            Observer(index, cluster, runtime, applied, installation, store, witnesses),
            Actor(cluster, runtime, index, applied),
            Reporter(cluster, index, wake, Patience(time.monotonic)),
            installation,
            now,
            journal,
        )
        # The jitter spreads load and keeps no secret.
        queue: WorkQueue[ModelKey] = WorkQueue(
            reconciler.reconcile, (metrics, journal), time.monotonic, asyncio.sleep, random.random, log_fields
        )
        resync = Resync(cluster, index, queue.wake, asyncio.sleep, random.random, seen_kinds(options.namespace))
        metrics.measure_queue(lambda: queue.depth, queue.longest_wait_seconds)
        metrics.measure_leadership(leadership.leads)
        registry.register(ConditionCollector(index, leadership.leads, options.condition_metrics_limit))

        async def work() -> None:
            # Another replica may have written since this one last did, and a pass may have been cut off.
            applied.forget_all()
            resync.wake_all()
            await queue.run(WORKERS)

        def requested(verb: str, resource: str) -> None:
            metrics.watch_requested(verb, resource)
            if verb == "list" and resource in BY_RESOURCE:
                resync.relisted(BY_RESOURCE[resource])

        started = asyncio.Event()
        async with (
            serving(make_probes(queue.longest_pass_seconds, started.is_set), options.health_port),
            serving(make_metrics_page(registry), options.metrics_port),
            serving(
                make_debug_page(index, queue, journal, leadership.leads, now), options.admin_port, options.admin_host
            ),
        ):
            await prime(resync)
            async with asyncio.TaskGroup() as group:
                background = [
                    group.create_task(resync.run(options.resync_seconds)),
                    group.create_task(policy.run(resync.wake_all, asyncio.sleep)),
                ]
                if store is not None:
                    references = ReferenceLoop(store, index, leadership.leads, asyncio.sleep)
                    background.append(group.create_task(references.run()))
                watching = group.create_task(
                    watch(connection, index, queue.wake, options.namespace, started, requested)
                )
                # A candidate from the moment on at which it could begin at once.
                await first_of(watching, started)
                background.append(group.create_task(leadership.run(work)))
                stop = stop_requested()
                await first_of(watching, stop)
                # Passes under way end, the Lease is given back, and then the watches end.
                await queue.drain(DRAIN_SECONDS)
                for task in background:
                    task.cancel()
                await asyncio.wait(background)
                watching.cancel()


def open_policy(path: Path | None) -> PolicySource:
    """The policy in force. Raises: SystemExit: there is none in the file."""
    try:
        return PolicySource(path)
    except (OSError, ValueError) as error:
        raise SystemExit(f"motet-operator: --policy {path}: {error}") from error


def make_leadership(lease: LeaseName | None, api: client.ApiClient, metrics: Metrics) -> Leadership:
    """By the Lease, or without one. Its calls wait for no turn, and hang for less long than it can be kept."""
    if lease is None:
        return Alone()
    me = f"{socket.gethostname()}_{uuid.uuid4()}"
    store = Cluster(api, metrics, timeout_seconds=LEASE_CALL_SECONDS)
    return Election(store, lease, me, steady_clock, now, asyncio.sleep)


def steady_clock() -> float:
    """Seconds that nobody sets, and that go on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def now() -> datetime:
    """The time of day."""
    return datetime.now(UTC)


def log_fields(key: ModelKey) -> dict[str, str]:
    """What the lines of a pass say that they are about."""
    return {"kind": Kind.MODEL_DEPLOYMENT, "namespace": key.namespace, "name": key.name}


def stop_requested() -> asyncio.Event:
    """Set by SIGTERM and SIGINT. They are taken from kopf, which at its end would wait for tasks that are ours."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def first_of(watching: asyncio.Task[None], event: asyncio.Event) -> None:
    """Wait for the event.

    Raises:
        WatchesEndedError: the watches ended before. kopf then cancels whatever was begun after it, this wait included.
    """
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait([watching, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not event.is_set():
        raise WatchesEndedError("the watches ended: see the error of kopf above; a new process begins them anew")


async def prime(resync: Resync) -> None:
    """List everything, however long it takes the API server (or whoever grants the rights) to let us."""
    while True:
        try:
            return await resync.prime()
        except OperatorError as error:
            log.warning("objects cannot be listed yet: %s", error)
        await asyncio.sleep(_PRIME_AGAIN_SECONDS)
