"""Whole passes against an API server and pods in memory: they converge, and then write nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

from motet_api.reasons import AdapterReason
from motet_operator.errors import NotFoundError, RefusedError, UnavailableError
from motet_operator.keys import Kind
from motet_operator.kube.index import Index
from motet_operator.passes.act import Actor
from motet_operator.passes.applied import AppliedMemory
from motet_operator.passes.observe import Observer
from motet_operator.passes.patience import Patience
from motet_operator.passes.reconciler import Reconciler
from motet_operator.passes.report import Reporter
from tests.operator.factories import INSTALLATION, KEY, MODEL, NAMESPACE, NOW, raw_adapter, raw_child, raw_model
from tests.operator.fakes import FakeCluster, FakeRuntime

IP = "10.0.0.1"
SCALED = {"autoscaling": {"maxReplicas": 3, "targetQueueDepth": 4}}


@dataclass
class World:
    """The operator's parts around one fake cluster. `restart` loses what the process remembers."""

    cluster: FakeCluster = field(default_factory=FakeCluster)
    runtime: FakeRuntime = field(default_factory=lambda: FakeRuntime(IP))
    now: datetime = NOW

    def __post_init__(self) -> None:
        self.restart()

    def restart(self, patience: Patience | None = None) -> None:
        self.index, applied = Index(), AppliedMemory()
        self.reconciler = Reconciler(
            Observer(self.index, self.cluster, self.runtime, applied, INSTALLATION),
            Actor(self.cluster, self.runtime, self.index, applied),
            Reporter(self.cluster, self.index, patience=patience),
            INSTALLATION,
            lambda: self.now,
        )

    async def run(self) -> list[str]:
        """One pass, after the watches have told everything; returns what it wrote."""
        self.cluster.show(self.index)
        before = len(self.cluster.writes)
        self.now += timedelta(seconds=1)
        await self.reconciler.reconcile(KEY)
        return self.cluster.writes[before:]

    async def converge(self) -> int:
        """Passes until one writes nothing; returns how many wrote."""
        for count in range(10):
            if not await self.run():
                return count
        raise AssertionError(f"still writing after ten passes: {self.cluster.writes[-4:]}")

    def status(self, kind: Kind, name: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.cluster.objects[kind, NAMESPACE, name]["status"]
        return found

    def ready(self, kind: Kind, name: str) -> tuple[str, str]:
        (found,) = [entry for entry in self.status(kind, name)["conditions"] if entry["type"] == "Ready"]
        return found["status"], found["reason"]


def ready_pod(name: str = "llama-a", ip: str = IP, ready: str = "True") -> dict[str, Any]:
    container = {"name": "runtime", "state": {"running": {"startedAt": "2026-11-24T09:00:00Z"}}}
    status = {
        "podIP": ip,
        "containerStatuses": [container],
        "conditions": [{"type": "Ready", "status": ready}],
    }
    return raw_child(Kind.POD, name=name, owner="", status=status)


def rolled_out(world: World) -> None:
    """What the Deployment controller would do."""
    raw = world.cluster.objects[Kind.DEPLOYMENT, NAMESPACE, MODEL]
    status = {"observedGeneration": 1, "replicas": 1, "readyReplicas": 1, "updatedReplicas": 1}
    world.cluster.put(Kind.DEPLOYMENT, raw | {"status": status})


async def serving_world(**spec: Any) -> World:
    """A model with one pod and one adapter, converged."""
    world = World()
    world.cluster.put(Kind.MODEL_DEPLOYMENT, raw_model(**spec))
    world.cluster.put(Kind.LORA_ADAPTER, raw_adapter())
    world.cluster.put(Kind.POD, ready_pod())
    await world.converge()
    rolled_out(world)
    await world.converge()
    return world


async def test_it_converges_and_then_writes_nothing() -> None:
    world = await serving_world(**SCALED)
    assert {kind for kind, _, _ in world.cluster.objects} >= {
        Kind.DEPLOYMENT,
        Kind.SERVICE,
        Kind.SERVICE_ACCOUNT,
        Kind.AUTOSCALER,
    }
    assert world.ready(Kind.MODEL_DEPLOYMENT, MODEL) == ("True", "Ready")
    assert world.ready(Kind.LORA_ADAPTER, "voice") == ("True", "Ready")
    assert world.status(Kind.LORA_ADAPTER, "voice")["traffic"] == [{"version": "v1", "weight": 1}]
    puts, writes, events = world.runtime.puts, len(world.cluster.writes), len(world.cluster.events)
    for _ in range(5):
        assert await world.run() == []
    assert (world.runtime.puts, len(world.cluster.writes), len(world.cluster.events)) == (puts, writes, events)


async def test_a_restart_applies_once_more_and_says_nothing_new() -> None:
    world = await serving_world()
    events = len(world.cluster.events)
    world.restart()
    assert await world.run() == [
        f"apply {kind} {MODEL}" for kind in ("ServiceAccount", "Service", "PodDisruptionBudget", "Deployment")
    ]
    assert await world.run() == []
    assert len(world.cluster.events) == events


@pytest.mark.parametrize("kind", [Kind.SERVICE_ACCOUNT, Kind.SERVICE, Kind.DEPLOYMENT, Kind.AUTOSCALER])
async def test_a_child_deleted_by_hand_comes_back(kind: Kind) -> None:
    world = await serving_world(**SCALED)
    raw = world.cluster.objects.pop((kind, NAMESPACE, MODEL))
    world.index.remove(kind, raw)
    assert f"apply {kind} {MODEL}" in await world.run()
    assert (kind, NAMESPACE, MODEL) in world.cluster.objects


async def test_a_field_changed_by_hand_is_put_right() -> None:
    world = await serving_world()
    raw = world.cluster.objects[Kind.SERVICE, NAMESPACE, MODEL]
    taken = [{"manager": "motet-operator", "operation": "Apply", "fieldsV1": {}}]
    world.cluster.put(Kind.SERVICE, raw | {"metadata": raw["metadata"] | {"managedFields": taken}})
    assert await world.run() == [f"apply Service {MODEL}"]
    assert await world.run() == []


async def test_autoscaling_removed_from_spec_takes_its_autoscaler_along() -> None:
    world = await serving_world(**SCALED)
    world.cluster.put(Kind.MODEL_DEPLOYMENT, raw_model(generation=2))
    assert f"delete HorizontalPodAutoscaler {MODEL}" in await world.run()


async def test_an_unlabelled_object_of_that_name_is_not_taken_over() -> None:
    world = World()
    world.cluster.put(Kind.MODEL_DEPLOYMENT, raw_model())
    foreign = raw_child(Kind.SERVICE, owner="")
    foreign["metadata"]["labels"] = {}
    world.cluster.put(Kind.SERVICE, foreign)
    assert await world.run() == [f"status ModelDeployment {MODEL}"]
    assert world.ready(Kind.MODEL_DEPLOYMENT, MODEL) == ("False", "NameTaken")
    del world.cluster.objects[Kind.SERVICE, NAMESPACE, MODEL]
    assert f"apply Service {MODEL}" in await world.run()


async def test_what_the_api_server_refuses_is_in_the_condition() -> None:
    world = World()
    world.cluster.put(Kind.MODEL_DEPLOYMENT, raw_model())
    world.cluster.refuse[Kind.DEPLOYMENT] = RefusedError("spec.template.spec.volumes[0]: Required value")
    await world.run()
    assert world.ready(Kind.MODEL_DEPLOYMENT, MODEL) == ("False", "InvalidSpec")
    assert ("Warning", MODEL, "InvalidSpec") in world.cluster.said()
    world.cluster.refuse.clear()
    await world.run()
    assert world.ready(Kind.MODEL_DEPLOYMENT, MODEL) == ("False", "Progressing")


async def test_an_api_server_that_does_not_answer_ends_the_pass() -> None:
    world = World()
    world.cluster.put(Kind.MODEL_DEPLOYMENT, raw_model())
    world.cluster.refuse[Kind.SERVICE_ACCOUNT] = UnavailableError("timed out")
    with pytest.raises(UnavailableError):
        await world.run()
    assert "status" not in world.cluster.objects[Kind.MODEL_DEPLOYMENT, NAMESPACE, MODEL]


async def test_an_object_that_is_gone_when_its_status_is_written_is_no_error() -> None:
    world = World()
    world.cluster.put(Kind.LORA_ADAPTER, raw_adapter())
    world.cluster.refuse[Kind.LORA_ADAPTER] = NotFoundError("gone")
    assert await world.run() == ["status LoraAdapter voice"]


async def test_a_status_that_cannot_be_written_keeps_no_other_back() -> None:
    world = await serving_world()
    world.cluster.put(Kind.LORA_ADAPTER, raw_adapter("topic"))
    world.cluster.refuse[Kind.MODEL_DEPLOYMENT] = UnavailableError("timed out")
    with pytest.raises(UnavailableError):
        await world.run()
    assert "status LoraAdapter topic" in world.cluster.writes


async def test_a_new_version_is_loaded_before_the_split_moves() -> None:
    world = await serving_world()
    world.cluster.put(
        Kind.LORA_ADAPTER,
        raw_adapter(versions=("v1", "v2"), traffic={"v2": 1}, status=dict(world.status(Kind.LORA_ADAPTER, "voice"))),
    )
    await world.run()
    assert world.status(Kind.LORA_ADAPTER, "voice")["traffic"] == [{"version": "v1", "weight": 1}]
    await world.run()
    assert world.status(Kind.LORA_ADAPTER, "voice")["traffic"] == [{"version": "v2", "weight": 1}]


async def test_a_broken_version_says_so_once() -> None:
    world = await serving_world()
    world.runtime.broken["broken@v1"] = AdapterReason.CORRUPT_WEIGHTS
    world.cluster.put(Kind.LORA_ADAPTER, raw_adapter("broken"))
    await world.converge()
    assert world.ready(Kind.LORA_ADAPTER, "broken") == ("False", "CorruptWeights")
    assert world.ready(Kind.LORA_ADAPTER, "voice") == ("True", "Ready")
    said = [entry for entry in world.cluster.said() if entry[1] == "broken"]
    assert said == [("Warning", "broken", "CorruptWeights"), ("Warning", "broken", "CorruptWeights")]
    notes = [event["note"] for event in world.cluster.events if event["regarding"]["name"] == "broken"]
    assert [note.partition(":")[0] for note in notes] == ["Ready is False", "v1"]


async def test_events_tell_of_turns_for_good_and_for_bad() -> None:
    world = await serving_world()
    assert ("Normal", "voice", "Ready") in world.cluster.said()
    world.cluster.events.clear()
    world.runtime.silent.add(IP)
    await world.converge()
    assert ("Warning", "voice", "PodUnreachable") in world.cluster.said()
    world.cluster.events.clear()
    world.runtime.silent.clear()
    await world.converge()
    assert ("Normal", "voice", "Ready") in world.cluster.said()


async def test_lost_events_do_not_stop_a_pass() -> None:
    world = World()
    world.cluster.events_fail = True
    world.cluster.put(Kind.LORA_ADAPTER, raw_adapter())
    await world.converge()
    assert world.ready(Kind.LORA_ADAPTER, "voice") == ("False", "ModelDeploymentNotFound")


async def test_a_silent_pod_takes_nothing_away() -> None:
    world = await serving_world()
    world.runtime.silent.add(IP)
    await world.converge()
    status = world.status(Kind.LORA_ADAPTER, "voice")
    assert status["traffic"] == [{"version": "v1", "weight": 1}]
    assert (status["versions"][0]["readyOn"], status["versions"][0]["pods"]) == (1, 1)


async def test_a_pod_that_started_anew_is_told_again() -> None:
    world = await serving_world()
    puts = world.runtime.puts
    world.runtime.told[IP] = None
    await world.converge()
    assert world.runtime.puts == puts + 1


async def test_a_pod_that_cannot_be_told_is_no_error() -> None:
    world = await serving_world()
    world.cluster.put(Kind.LORA_ADAPTER, raw_adapter("topic"))
    world.runtime.tell = _silent_tell  # type: ignore[method-assign]
    assert await world.reconciler.reconcile(KEY) is not None


async def _silent_tell(ip: str, document: Any) -> Any:
    world = FakeRuntime(ip)
    world.silent.add(ip)
    return await world.tell(ip, document)


async def test_a_model_that_is_deleted_leaves_its_adapters_with_a_reason() -> None:
    world = await serving_world()
    raw = world.cluster.objects.pop((Kind.MODEL_DEPLOYMENT, NAMESPACE, MODEL))
    world.index.remove(Kind.MODEL_DEPLOYMENT, raw)
    await world.converge()
    assert world.ready(Kind.LORA_ADAPTER, "voice") == ("False", "ModelDeploymentNotFound")
