"""A system in which nothing changes writes nothing."""

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.e2e.audit import Call, calls
from tests.e2e.objects import adapter, model_deployment, source
from tests.e2e.world import World, condition
from tests.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

QUIET_SECONDS = 60
SETTLE_SECONDS = 60


def test_no_writes_for_a_minute(world: World) -> None:
    autoscaling = {"minReplicas": 1, "maxReplicas": 2, "targetQueueDepth": 4}
    world.apply(model_deployment(world.namespace, "tiny", autoscaling=autoscaling))
    world.apply(adapter(world.namespace, "voice", "tiny", {"v1": source("voice-1")}))
    world.wait_ready("mdep/tiny", "lora/voice")
    log = Path(world.installation.cluster.status().audit_log or "")

    def quiet() -> float:
        """Seconds since the last write."""
        now = datetime.now(UTC)
        return (now - max((call.at for call in calls(log) if call.writes), default=now)).total_seconds()

    def others() -> list[str]:
        """Namespaces of other modules that are still on their way out."""
        names = world.kubectl("get", "namespaces", "-o", "jsonpath={.items[*].metadata.name}").split()
        return [name for name in names if name.startswith("e2e-") and name != world.namespace]

    eventually(others, lambda names: not names, SETTLE_SECONDS, "no other module's namespace")
    # The HPA's controller seldom looks up which metrics there are: its first reading in a new cluster is late.
    eventually(
        lambda: condition(world.read("mdep", "tiny"), "Autoscaling")["status"],
        "True".__eq__,
        SETTLE_SECONDS,
        "a reading",
    )
    eventually(quiet, lambda seconds: seconds > 5, SETTLE_SECONDS, "quiet")
    begun = datetime.now(UTC)
    deadline = time.monotonic() + QUIET_SECONDS
    seen: list[Call] = []
    while time.monotonic() < deadline and not seen:
        time.sleep(1)
        seen = [call for call in calls(log) if call.writes and call.at > begun]
    assert seen == []
    assert {call.part for call in calls(log)} == {"operator", "gateway", "metrics-api"}, "the log knows all parts"
