"""The operator's own HTTP answers three different questions."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry

from motet_operator.keys import ModelKey
from motet_operator.metrics import Metrics
from motet_operator.running.probes import STUCK_SECONDS, make_metrics_page, make_probes


@asynccontextmanager
async def client_of(app: web.Application) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    async with TestClient(TestServer(app)) as client:
        yield client


@pytest.mark.parametrize(("seconds", "status"), [(0.0, 200), (STUCK_SECONDS - 1, 200), (STUCK_SECONDS + 1, 503)])
async def test_alive_unless_a_pass_is_stuck(seconds: float, status: int) -> None:
    async with client_of(make_probes(lambda: seconds, lambda: False)) as client:
        assert (await client.get("/livez")).status == status


@pytest.mark.parametrize(("ready", "status"), [(True, 200), (False, 503)])
async def test_ready_once_the_watches_are_up(ready: bool, status: int) -> None:
    async with client_of(make_probes(lambda: 0.0, lambda: ready)) as client:
        assert (await client.get("/readyz")).status == status


async def test_the_metrics_page() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.measure_queue(lambda: 3, lambda: 1.5)
    metrics.measure_leadership(lambda: True)
    metrics.pass_ended(ModelKey("speech", "llama"), "done", 0.01, "")
    metrics.api_called("apply", "services", 200, 0.02)
    metrics.api_waited(0.5)
    metrics.watch_requested("list", "pods")
    metrics.runtime_called("PUT", answered=False)
    async with client_of(make_metrics_page(registry)) as client:
        text = await (await client.get("/metrics")).text()
    for line in (
        'motet_operator_reconciles_total{result="done"} 1.0',
        "motet_operator_queue_depth 3.0",
        "motet_operator_queue_wait_seconds 1.5",
        "motet_operator_leader 1.0",
        'motet_operator_api_calls_total{code="200",resource="services",verb="apply"} 1.0',
        'motet_operator_api_seconds_count{verb="apply"} 1.0',
        "motet_operator_api_wait_seconds_total 0.5",
        'motet_operator_watch_requests_total{resource="pods",verb="list"} 1.0',
        'motet_operator_runtime_calls_total{answered="false",method="PUT"} 1.0',
        "motet_operator_reconcile_seconds_count 1.0",
    ):
        assert line in text
