"""Where the adapter store is put together."""

import argparse
import asyncio
import logging
import random
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from kubernetes.aio import client
from prometheus_client import CollectorRegistry, ProcessCollector

from motet_operator.kube.cluster import Cluster
from motet_operator.kube.connection import connect
from motet_operator.metrics import ApiMetrics
from motet_operator.running.probes import make_metrics_page, serving
from motet_operator.store.assembly import Store, StoreSettings
from motet_operator.store.disk import Disk
from motet_operator.store.metrics import StoreMetrics
from motet_operator.store.policy_file import PolicyFile
from motet_operator.store.policy_networks import PolicyNetworks
from motet_operator.store.secret_reader import KubernetesSecrets, NoSecrets, SecretReader
from motet_operator.store.sources.contract import Limits
from motet_operator.store.sources.schemes import Sources, SourceSettings

log = logging.getLogger(__name__)


async def serve(options: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    policy = PolicyFile(options.policy)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    # A tenth is left to the records. What is larger than the rest could never be kept.
    disk = Disk(options.disk * 9 // 10)
    limits = Limits(
        max_file_bytes=min(options.max_file_size, disk.limit),
        max_total_bytes=min(options.max_artifact_size, disk.limit),
    )
    settings = StoreSettings(
        folder=options.data,
        limits=limits,
        jobs=options.jobs,
        jobs_per_host=options.jobs_per_host,
        grace_seconds=options.grace_seconds,
        keep_seconds=options.keep_seconds,
        fresh_seconds=options.fresh_seconds,
    )
    source_settings = SourceSettings(
        scratch=options.data / "scratch",
        limits=limits,
        room=disk,
        networks=PolicyNetworks(policy),
        hub_endpoint=options.hub_endpoint,
        plain_http_registries=frozenset(options.plain_http_registry),
        claims=options.claims,
        roots=tuple(options.file_root),
    )
    async with Sources(source_settings) as sources, _secrets(options, registry) as secrets:
        store = Store(
            settings,
            disk,
            sources,
            secrets,
            policy,
            StoreMetrics(registry),
            time.time,
            random.Random(),  # noqa: S311
        )
        await asyncio.to_thread(store.open)
        log.info("%d artifacts are here", len(store.catalogue.artifacts))
        async with (
            serving(make_metrics_page(registry), options.metrics_port),
            serving(store.reads.application(), options.port),
            serving(store.admin.application(), options.admin_port),
            asyncio.TaskGroup() as group,
        ):
            work = group.create_task(store.run())
            await stop.wait()
            work.cancel()


@asynccontextmanager
async def _secrets(options: argparse.Namespace, registry: CollectorRegistry) -> AsyncIterator[SecretReader]:
    if options.secrets == "none":
        yield NoSecrets()
        return
    async with client.ApiClient(await connect(options.kubeconfig)) as api:
        yield KubernetesSecrets(Cluster(api, ApiMetrics(registry)))
