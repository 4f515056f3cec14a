"""A burst makes the real HPA scale from one pod to two and back, without a failed request."""

import asyncio
from typing import Any

import pytest

from demo_lib.burst import Target, observed, send_burst
from demo_lib.console import table
from demo_lib.proxy import kube_proxy
from demo_lib.stages import Stage, Timeline
from localkube_lib import binaries
from motet_api.names import CUSTOM_METRICS_GROUP, QUEUE_DEPTH_METRIC
from motet_api.reasons import AdapterReason, Reason
from tests.e2e.asking import PROMPT, Load
from tests.e2e.objects import adapter, model_deployment, source
from tests.e2e.readiness import never_ready_too_early
from tests.e2e.world import World, condition
from tests.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

TARGET_DEPTH = 4
BURST_AT_ONCE = 16
BURST_SECONDS = 90
TOKENS = 96
ADAPTERS = {"one": "voice-1", "two": "voice-2"}


def test_a_burst_scales_up_and_down_again(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    autoscaling = {
        "minReplicas": 1,
        "maxReplicas": 2,
        "targetQueueDepth": TARGET_DEPTH,
        "scaleDown": {"holdSeconds": 5},
    }
    world.apply(model_deployment(world.namespace, "tiny", max_batch_size=2, autoscaling=autoscaling))
    world.apply(*(adapter(world.namespace, name, "tiny", {"v1": source(path)}) for name, path in ADAPTERS.items()))
    world.wait_ready("mdep/tiny", *(f"lora/{name}" for name in ADAPTERS))

    timeline = Timeline(frozenset(pod["metadata"]["name"] for pod in world.pods("tiny")))
    with never_ready_too_early(world, ADAPTERS):
        tally = asyncio.run(burst(world, timeline))
    with capsys.disabled():
        print("\n" + table(("stage", "seconds since first queued", "of which this stage"), timeline.rows()))
    assert tally.failed == []
    assert list(timeline.seen) and set(timeline.seen) == set(Stage)
    assert timeline.new_pod in tally.answered
    report = world.report(timeline.new_pod or "")
    assert report is not None
    resident = {entry.id for entry in report.adapters if entry.reason is AdapterReason.RESIDENT}
    assert resident == {f"{name}@v1" for name in ADAPTERS}

    # A trickle goes on while the second pod is taken away: it must drain, not break off.
    with Load(world.url, [f"{world.namespace}/{name}" for name in ADAPTERS], threads=1) as load:
        eventually(lambda: world.pod_names("tiny"), lambda names: len(names) == 1, 120, "one pod, and no other ending")
        until = len(load.answers) + 10
        eventually(lambda: len(load.answers), until.__le__, 30, "answers after scaling down")
    assert load.failed == []
    model = world.read("mdep", "tiny")
    assert model["spec"]["replicas"] == 1
    assert condition(model, "Autoscaling")["status"] == "True"


async def burst(world: World, timeline: Timeline) -> Any:
    """Send it, with the observers that fill the timeline."""
    models = [f"{world.namespace}/{name}" for name in ("tiny", *ADAPTERS)]
    bodies = [{"model": model, "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0} for model in models]
    target = Target(world.namespace, "tiny", TARGET_DEPTH)
    with kube_proxy(binaries.kubectl(), world.installation.cluster.kubeconfig) as proxy:
        async with observed(proxy, world.url, target, timeline, lambda hpa: None):
            return await send_burst(world.url, bodies, BURST_AT_ONCE, timeline, BURST_SECONDS, settle=2)


def test_kubectl_shows_target_and_current(world: World) -> None:
    def line() -> str:
        return world.kubectl("get", "hpa", "--no-headers")

    shown = eventually(line, lambda text: f"/{TARGET_DEPTH} (avg)" in text, 30, "kubectl get hpa")
    assert "unknown" not in shown


def test_stale_numbers_are_not_served(world: World) -> None:
    """Without a gateway there is no number: the metrics API says 404, the ModelDeployment why it does not scale."""
    deployment = ("deployment/motet-gateway", "-n", "motet-system")
    kubectl = world.installation.cluster.kubectl
    namespaced = f"/apis/{CUSTOM_METRICS_GROUP}/v1beta2/namespaces/{world.namespace}"
    path = f"{namespaced}/modeldeployments.motet.dev/tiny/{QUEUE_DEPTH_METRIC}"
    assert '"value"' in kubectl("get", "--raw", path)

    def autoscaling_reason() -> str:
        return str(condition(world.read("mdep", "tiny"), "Autoscaling")["reason"])

    kubectl("scale", *deployment, "--replicas=0")
    try:
        eventually(lambda: kubectl("get", "--raw", path, check=False), lambda text: "NotFound" in text, 30, "a 404")
        eventually(autoscaling_reason, (Reason.METRIC_UNAVAILABLE).__eq__, 60, "the reason why it does not scale")
    finally:
        kubectl("scale", *deployment, "--replicas=1")
        kubectl("rollout", "status", *deployment, "--timeout=60s")
    eventually(lambda: kubectl("get", "--raw", path, check=False), lambda text: '"value"' in text, 30, "a number again")
    eventually(autoscaling_reason, (Reason.SCALING_ACTIVE).__eq__, 60, "scaling again")
