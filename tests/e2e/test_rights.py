"""The rights in the chart against the rights used: nothing is refused, and nothing granted stays unused.

Runs last: the audit log holds what every other test made the parts do. What those leave out is done here.
"""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from demo_lib.installation import merged
from tests.chart.rendering import of_kind, render
from tests.e2e.audit import ACCOUNTS, Call, calls
from tests.e2e.faults import API_SERVER
from tests.e2e.objects import adapter, model_deployment, source
from tests.e2e.values import VALUES
from tests.e2e.world import World
from tests.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

READS_ROLES = timedelta(seconds=10)
Right = tuple[str, str, str]
"""API group, resource, verb."""
DELEGATED = {
    "metrics-api": {
        ("authorization.k8s.io", "subjectaccessreviews", "create"),
        ("", "configmaps", "get"),
    }
}
"""Rights that come from roles of Kubernetes itself, to which the chart only binds."""


@pytest.fixture(scope="module")
def used(world: World, tags: dict[str, str]) -> list[Call]:
    """Every call so far, after a life of a ModelDeployment from its creation to its removal."""
    autoscaling = {"minReplicas": 1, "maxReplicas": 2, "targetQueueDepth": 4}
    prefetch = {"prefetch": {"image": "AllNodes"}}
    model = model_deployment(world.namespace, "tiny", autoscaling=autoscaling, startup=prefetch)
    world.apply(model)
    world.apply(adapter(world.namespace, "voice", "tiny", {"v1": source("voice-1")}))
    world.wait_ready("mdep/tiny", "lora/voice")
    world.kubectl("wait", "mdep/tiny", "--for=condition=PrefetchComplete", "--timeout=60s")
    world.apply(
        adapter(world.namespace, "voice", "tiny", {"v1": source("voice-1"), "v2": source("nowhere")}, {"v1": 1})
    )
    world.apply(adapter(world.namespace, "voice", "tiny", {"v1": source("voice-1")}))
    eventually(lambda: len(world.read("lora", "voice")["status"]["versions"]), (1).__eq__, 30, "v2 has gone")
    removed = [{"op": "remove", "path": f"/spec/{field}"} for field in ("autoscaling", "startup")]
    world.kubectl("patch", "mdep", "tiny", "--type=json", "-p", json.dumps(removed))
    eventually(lambda: world.kubectl("get", "hpa,daemonset", "-o", "name"), "".__eq__, 30, "neither of them any more")
    world.installation.install(tags, merged(VALUES, {"networkPolicies": {"enabled": False}}))
    eventually(lambda: world.kubectl("get", "networkpolicy", "-o", "name"), "".__eq__, 60, "no NetworkPolicy any more")
    log = Path(world.installation.cluster.status().audit_log or "")
    return list(calls(log))


def granted(manifests: list[dict[str, Any]], part: str) -> set[Right]:
    """What the chart's own roles allow one part."""
    found = set()
    roles = of_kind(manifests, "ClusterRole") | of_kind(manifests, "Role")
    bindings = of_kind(manifests, "ClusterRoleBinding") | of_kind(manifests, "RoleBinding")
    for binding in bindings.values():
        subject, role = binding["subjects"][0]["name"], roles.get(binding["roleRef"]["name"])
        if subject != f"motet-{part}" or role is None:
            continue
        found |= {
            (group, resource, verb)
            for rule in role["rules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }
    return found


@pytest.mark.parametrize("part", ACCOUNTS.values())
def test_nothing_is_refused(world: World, used: list[Call], part: str) -> None:
    record = world.installation.cluster.processes.find(API_SERVER)
    assert record is not None
    started = datetime.fromtimestamp(record.started_at(), UTC)

    def unread(call: Call) -> bool:
        """An API server that was just started answers before it has read the roles, and refuses everybody."""
        return started <= call.at < started + READS_ROLES

    assert [call for call in used if call.part == part and not call.allowed and not unread(call)] == []


@pytest.mark.parametrize("part", ACCOUNTS.values())
def test_rights_granted_are_the_rights_used(used: list[Call], part: str) -> None:
    seen = {(call.group, call.resource, verb) for call in used if call.part == part for verb in call.verbs}
    allowed = granted(render(VALUES), part)
    assert allowed - seen == set(), "granted and never used"
    assert seen - allowed - DELEGATED.get(part, set()) == set(), "used and not in the chart"
