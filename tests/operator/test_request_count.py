"""What a pass asks of the API server and of the pods: where nothing changes nothing, and elsewhere what it must."""

from typing import Any

import pytest

from motet_api.reasons import AdapterReason
from motet_operator.keys import Kind
from motet_operator.passes import reconciler
from motet_operator.passes.patience import STEP_SECONDS, Patience
from tests.operator.factories import (
    DIGEST,
    KEY,
    MODEL,
    NAMESPACE,
    adapter,
    holds,
    model,
    raw_adapter,
    raw_model,
    settled,
    state,
)
from tests.operator.factories import decided as decide
from tests.operator.test_patience import Clock
from tests.operator.test_reconciler import IP, World, ready_pod, rolled_out


class Counting(World):
    """Counts what a pass reads, too."""

    def restart(self, patience: Patience | None = None) -> None:
        super().restart(patience)
        self.reads: list[str] = []
        self.asked = 0
        get, report = self.cluster.get, self.runtime.report

        async def counted_get(kind: Kind, namespace: str, name: str) -> dict[str, Any]:
            self.reads.append(f"{kind} {name}")
            return await get(kind, namespace, name)

        async def counted_report(ip: str) -> Any:
            self.asked += 1
            return await report(ip)

        self.cluster.get, self.runtime.report = counted_get, counted_report  # type: ignore[method-assign]

    async def settle(self) -> None:
        """Passes until one writes nothing, and one more: the first after a write looks at everything again."""
        await self.converge()
        await self.run()
        self.reads.clear()
        self.asked = 0


async def world_of(adapters: int) -> Counting:
    """A model with one pod and so many adapters, all as it should be."""
    world = Counting()
    world.cluster.put(Kind.MODEL_DEPLOYMENT, raw_model())
    for index in range(adapters):
        world.cluster.put(Kind.LORA_ADAPTER, raw_adapter(f"voice-{index:02}"))
    world.cluster.put(Kind.POD, ready_pod())
    await world.converge()
    rolled_out(world)
    await world.settle()
    return world


@pytest.fixture
def decisions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by one with every decision that a pass makes."""
    made: list[str] = []
    whole = reconciler.decide

    def counted(*arguments: Any) -> Any:
        made.append("decided")
        return whole(*arguments)

    monkeypatch.setattr(reconciler, "decide", counted)
    return made


async def test_a_steady_pass_asks_each_pod_once_and_the_api_server_nothing(decisions: list[str]) -> None:
    world = await world_of(20)
    decisions.clear()
    for _ in range(3):
        assert await world.run() == []
    assert (world.reads, world.asked, world.runtime.puts, len(decisions)) == ([], 3, 2, 0)


@pytest.mark.parametrize("adapters", [5, 40])
async def test_statuses_and_events_are_a_few_for_each_adapter(adapters: int) -> None:
    world = await world_of(adapters)
    written = [entry for entry in world.cluster.writes if entry.startswith("status LoraAdapter")]
    assert adapters <= len(written) <= 3 * adapters
    told = [event for event in world.cluster.events if event["regarding"]["kind"] == Kind.LORA_ADAPTER]
    assert [event["note"].partition(":")[0] for event in told] == ["Ready is True"] * adapters
    assert world.runtime.puts == 2, "once before the digests are known, and once with them"


async def test_a_change_of_one_adapter_writes_of_that_one_only() -> None:
    world = await world_of(20)
    status = dict(world.status(Kind.LORA_ADAPTER, "voice-07"))
    world.cluster.put(Kind.LORA_ADAPTER, raw_adapter("voice-07", ("v1", "v2"), {"v2": 1}, status))
    before = len(world.cluster.writes)
    await world.settle()
    written = {entry for entry in world.cluster.writes[before:] if "LoraAdapter" in entry}
    assert written == {"status LoraAdapter voice-07"}
    assert world.status(Kind.LORA_ADAPTER, "voice-07")["traffic"] == [{"version": "v2", "weight": 1}]


@pytest.mark.parametrize("what", ["pod", "adapter", "child", "memory"])
async def test_whatever_changes_is_decided_about(what: str, decisions: list[str]) -> None:
    world = await world_of(3)
    decisions.clear()
    match what:
        case "pod":
            world.runtime.broken["voice-01@v1"] = AdapterReason.CORRUPT_WEIGHTS
        case "adapter":
            world.cluster.put(Kind.LORA_ADAPTER, raw_adapter("new"))
        case "child":
            world.index.remove(Kind.SERVICE, world.cluster.objects.pop((Kind.SERVICE, NAMESPACE, MODEL)))
        case "memory":
            world.restart()
    assert await world.run() or world.runtime.puts > 2
    assert decisions


async def test_a_pod_that_loses_what_it_held_is_told_again_after_any_time_at_rest() -> None:
    world = await world_of(3)
    for _ in range(5):
        await world.run()
    world.runtime.told[IP] = None
    await world.run()
    assert world.runtime.puts == 3


def test_a_decision_that_waits_for_something_is_not_settled() -> None:
    voice = adapter("voice", status=None, digest=DIGEST)
    loading = holds(("voice@v1", AdapterReason.LOADING), desired_digest=DIGEST)
    assert decide(settled(model(), (voice,), (state(holds("voice@v1", desired_digest=DIGEST)),))).settled
    assert not decide(settled(model(), (voice,), (state(loading),))).settled
    assert not decide(settled(model(), (voice,), (state(holds()),))).settled
    assert not decide(settled(model(), (voice,), (state(None),))).settled


async def test_steps_that_are_soon_over_are_not_written() -> None:
    world, clock = World(), Clock()
    world.restart(Patience(clock))
    world.cluster.put(Kind.MODEL_DEPLOYMENT, raw_model())
    world.cluster.put(Kind.LORA_ADAPTER, raw_adapter("voice"))
    await world.run()
    assert await world.run() == [], "no pod yet"
    world.cluster.put(Kind.POD, ready_pod())
    await world.converge()
    assert world.cluster.writes.count("status LoraAdapter voice") == 1
    assert world.ready(Kind.LORA_ADAPTER, "voice") == ("True", "Ready")


async def test_a_step_that_lasts_is_written_though_nothing_else_happens() -> None:
    world, clock = World(), Clock()
    world.restart(Patience(clock))
    world.cluster.put(Kind.MODEL_DEPLOYMENT, raw_model())
    world.cluster.put(Kind.LORA_ADAPTER, raw_adapter("voice"))
    await world.run()
    assert await world.reconciler.reconcile(KEY) == STEP_SECONDS
    clock.now += STEP_SECONDS
    assert await world.run() == ["status LoraAdapter voice"]
    assert world.ready(Kind.LORA_ADAPTER, "voice") == ("False", "NoPods")
