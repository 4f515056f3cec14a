"""A bounded burst of requests, and observers that note when the cluster did what about it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from demo_lib.proxy import KubeProxy
from demo_lib.stages import Timeline
from motet_api.names import API_VERSION, CUSTOM_METRICS_GROUP, DEMAND_PATH, MODEL_LABEL, POD_HEADER, QUEUE_DEPTH_METRIC

POLL_SECONDS: Final = 0.2
REQUEST_TIMEOUT: Final = aiohttp.ClientTimeout(total=180)


@dataclass(frozen=True, slots=True)
class Target:
    """Whose burst it is. `depth` is spec.autoscaling.targetQueueDepth times the pods there are."""

    namespace: str
    model: str
    depth: float


@dataclass(slots=True)
class Tally:
    """What became of the requests."""

    answered: dict[str, int] = field(default_factory=dict)
    """Whole answers by pod."""
    failed: list[str] = field(default_factory=list)

    def note(self, pod: str) -> None:
        """Count one whole answer."""
        self.answered[pod] = self.answered.get(pod, 0) + 1


async def stream_one(
    session: aiohttp.ClientSession, url: str, body: dict[str, Any], timeline: Timeline, tally: Tally
) -> None:
    """Send one streaming request, note its first token and its end."""
    try:
        async with session.post(
            f"{url}/v1/completions", json=body | {"stream": True}, timeout=REQUEST_TIMEOUT
        ) as answer:
            if answer.status != 200:
                tally.failed.append(f"{answer.status} {(await answer.text())[:200]}")
                return
            pod = answer.headers.get(POD_HEADER, "")
            last = ""
            async for raw in answer.content:
                line = raw.decode().strip()
                if not line.startswith("data:"):
                    continue
                timeline.see_token(pod, time.monotonic())
                last = line.removeprefix("data:").strip()
            if last == "[DONE]":
                tally.note(pod)
            else:
                tally.failed.append(f"the stream from {pod} ended with {last[:200]!r}")
    except (aiohttp.ClientError, TimeoutError) as error:
        tally.failed.append(f"{type(error).__name__}: {error}")


async def send_burst(
    url: str,
    bodies: Sequence[dict[str, Any]],
    at_once: int,
    timeline: Timeline,
    seconds: float,
    settle: float = 3,
) -> Tally:
    """Keep `at_once` requests under way until the new pod has answered and `settle` seconds more, or time is up."""
    tally = Tally()
    deadline = time.monotonic() + seconds
    answered_at: float | None = None
    sent = 0

    async def worker(session: aiohttp.ClientSession) -> None:
        nonlocal answered_at, sent
        while time.monotonic() < deadline:
            if timeline.complete and answered_at is None:
                answered_at = time.monotonic()
            if answered_at is not None and time.monotonic() > answered_at + settle:
                return
            sent += 1
            await stream_one(session, url, bodies[sent % len(bodies)], timeline, tally)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(worker(session) for _ in range(at_once)))
    return tally


@asynccontextmanager
async def observed(
    proxy: KubeProxy, gateway: str, target: Target, timeline: Timeline, on_hpa: Callable[[dict[str, Any]], None]
) -> AsyncIterator[None]:
    """Fill the timeline while the block runs, from the gateway, the metrics API and watches of the Kubernetes API."""
    group = f"/apis/{API_VERSION}/namespaces/{target.namespace}/modeldeployments"
    metric = (
        f"/apis/{CUSTOM_METRICS_GROUP}/v1beta2/namespaces/{target.namespace}"
        f"/modeldeployments.motet.dev/{target.model}/{QUEUE_DEPTH_METRIC}"
    )

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def poll(look: Callable[[], Awaitable[None]]) -> None:
            while True:
                # An observer that misses one look sees the next.
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    await look()
                await asyncio.sleep(POLL_SECONDS)

        async def look_at_demand() -> None:
            async with session.get(gateway + DEMAND_PATH, timeout=aiohttp.ClientTimeout(total=5)) as answer:
                timeline.see_demand(await answer.json(), target.namespace, target.model, time.monotonic())

        async def look_at_metric() -> None:
            found = await proxy.read(session, metric)
            if found:
                timeline.see_metric(quantity(found["items"][0]["value"]), target.depth, time.monotonic())

        async def follow(path: str, see: Callable[[dict[str, Any]], None]) -> None:
            async for item in proxy.watch(session, path):
                see(item)

        def see_pod(pod: dict[str, Any]) -> None:
            if pod["metadata"].get("labels", {}).get(MODEL_LABEL) == target.model:
                timeline.see_pod(pod, time.monotonic())

        def see_model(model: dict[str, Any]) -> None:
            if model["metadata"]["name"] == target.model:
                timeline.see_model(model, time.monotonic())

        hpas = f"/apis/autoscaling/v2/namespaces/{target.namespace}/horizontalpodautoscalers"
        tasks = [
            asyncio.create_task(poll(look_at_demand)),
            asyncio.create_task(poll(look_at_metric)),
            asyncio.create_task(follow(f"/api/v1/namespaces/{target.namespace}/pods", see_pod)),
            asyncio.create_task(follow(group, see_model)),
            asyncio.create_task(follow(hpas, on_hpa)),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        broken = [result for result in results if not isinstance(result, asyncio.CancelledError)]
        if broken:
            raise RuntimeError(f"an observer stopped early: {broken}")


def quantity(text: str) -> float:
    """A Kubernetes quantity as the metrics API writes it: plain, or in thousandths."""
    return float(text.removesuffix("m")) / 1000 if text.endswith("m") else float(text)


def hpa_line(hpa: dict[str, Any]) -> str:
    """What `kubectl get hpa` would show of one."""
    status = hpa.get("status", {})
    current = [metric["object"]["current"] for metric in status.get("currentMetrics") or [] if metric.get("object")]
    shown = f"{quantity(current[0].get('averageValue') or current[0]['value']):g}" if current else "<unknown>"
    wanted = [metric["object"]["target"] for metric in hpa["spec"]["metrics"] if metric.get("object")]
    goal = wanted[0].get("averageValue") or wanted[0].get("value") if wanted else "?"
    replicas = f"{status.get('currentReplicas', 0)} -> {status.get('desiredReplicas', 0)}"
    return f"hpa {hpa['metadata']['name']}: {shown}/{goal} (avg), replicas {replicas}"


def burst_bodies(models: Sequence[str], texts: Sequence[str], tokens: int) -> list[dict[str, Any]]:
    """Requests that mix models, long enough to keep a pod busy."""
    return [
        {"model": model, "prompt": text, "max_tokens": tokens, "temperature": 0} for text in texts for model in models
    ]
