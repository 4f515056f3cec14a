"""Versions that the adapter store fetches: asked seldom, pinned once, told when verified, alone in their failures."""

import copy
from typing import Any

import pytest

from motet_api.reasons import AdapterReason
from motet_api.store import ArtifactReport, ArtifactState, Refusal
from motet_operator.clients.artifacts import REFUSED_SECONDS, SETTLED_SECONDS, WORRIED_SECONDS
from motet_operator.clients.references import ReferenceLoop
from motet_operator.keys import Kind
from tests.operator.adapter_world import BASE, AdapterWorld, FakePod, digest_of
from tests.operator.factories import DIGEST, NAMESPACE, raw_adapter, raw_model
from tests.operator.test_reconciler import IP, ready_pod

URI = "s3://bucket/v1"


def remote(name: str = "voice", uri: str = URI, **source: Any) -> dict[str, Any]:
    """An adapter with one version that is fetched."""
    raw = raw_adapter(name)
    raw["spec"]["versions"][0]["source"] = {"uri": uri, **source}
    return raw


def world_of(*adapters: dict[str, Any], store: bool = True, pods: int = 1) -> AdapterWorld:
    """A model with these adapters."""
    world = AdapterWorld(store=store)
    world.cluster.put(Kind.MODEL_DEPLOYMENT, raw_model())
    for raw in adapters or (remote(),):
        world.cluster.put(Kind.LORA_ADAPTER, raw)
    if pods:
        world.pods.pods[IP] = FakePod()
        world.cluster.put(Kind.POD, ready_pod())
    return world


def conditions(world: AdapterWorld, name: str = "voice") -> dict[str, tuple[str, str]]:
    return {kind: world.condition(kind, "v1", name) for kind in ("Resolved", "Verified", "Compatible", "Resident")}


def failed(reason: AdapterReason) -> ArtifactReport:
    return ArtifactReport(state=ArtifactState.FAILED, failure=Refusal(reason=reason, message="because"))


async def test_it_is_told_once_it_is_verified_and_recorded() -> None:
    world = world_of()
    assert world.store is not None
    world.store.bases.add(BASE.digest())
    await world.run()
    assert world.told(IP) == {}
    assert conditions(world)["Resolved"] == ("Unknown", "Fetching")
    assert "30%" in world.message("Resolved", "v1")
    assert world.condition("Ready") == ("False", "Progressing")
    assert await world.run() == 0.0, "what is recorded now is told at once"
    assert world.status()["versions"][0]["digest"] == digest_of(URI)
    assert world.told(IP) == {}, "recorded before it is told"
    await world.converge()
    told = world.told(IP)["voice@v1"]
    assert (told.digest, told.from_store, told.uri) == (digest_of(URI), True, URI)
    assert set(conditions(world).values()) == {
        ("True", "Resolved"),
        ("True", "Verified"),
        ("True", "Compatible"),
        ("True", "Resident"),
    }
    assert world.pods.pods[IP].document is not None
    assert world.pods.pods[IP].document.store == "http://store:8002"


async def test_a_base_that_the_store_does_not_know_is_described_by_a_pod() -> None:
    world = world_of()
    await world.converge()
    assert world.store is not None
    assert world.store.bases == {BASE.digest()}
    assert conditions(world)["Compatible"] == ("True", "Compatible")


async def test_a_steady_state_asks_once_in_minutes() -> None:
    world = world_of(*(remote(f"a{number}", f"s3://bucket/{number}") for number in range(20)))
    await world.converge()
    assert world.store is not None
    before = len(world.store.asked)
    for _ in range(int(SETTLED_SECONDS) - 10):
        await world.run()
    assert len(world.store.asked) == before
    world.tick(20)
    await world.run()
    (last,) = world.store.asked[before:]
    assert len(last) == 20, "one question for all"
    assert {request.digest for request in last} == {digest_of(f"s3://bucket/{number}") for number in range(20)}


async def test_another_source_under_the_same_name_is_never_held_to_the_old_digest() -> None:
    world = world_of()
    await world.converge()
    world.cluster.put(Kind.LORA_ADAPTER, remote(uri="s3://bucket/other") | {"status": world.status()})
    await world.converge()
    assert world.store is not None
    assert not any(request.uri == "s3://bucket/other" for query in world.store.asked for request in query)
    assert (world.told(IP)["voice@v1"].uri, world.split()) == (URI, {"v1": 1})
    assert world.condition("RolledOut") == ("False", "Waiting")
    assert world.condition("Ready") == ("False", "InvalidSpec")
    assert "version v1 was s3://bucket/v1 and cannot become s3://bucket/other" in world.message("Ready")
    world.cluster.put(Kind.LORA_ADAPTER, remote() | {"status": world.status()})
    await world.converge()
    assert world.condition("Ready") == ("True", "Ready"), "it is what it was"


async def test_what_the_source_means_later_does_not_matter() -> None:
    world = world_of()
    await world.converge()
    assert world.store is not None
    world.store.moved[URI] = DIGEST
    world.restart()
    await world.converge()
    assert world.status()["versions"][0]["digest"] == digest_of(URI)
    assert world.told(IP)["voice@v1"].digest == digest_of(URI)
    assert world.store.asked[-1][0].digest == digest_of(URI)


FAILURES = {
    AdapterReason.SOURCE_NOT_FOUND: ("Resolved", WORRIED_SECONDS, "Reconciling"),
    AdapterReason.SOURCE_FORBIDDEN: ("Resolved", REFUSED_SECONDS, "Stalled"),
    AdapterReason.DIGEST_MISMATCH: ("Resolved", REFUSED_SECONDS, "Stalled"),
    AdapterReason.UNSAFE_FORMAT: ("Verified", REFUSED_SECONDS, "Stalled"),
    AdapterReason.UNSUPPORTED: ("Compatible", REFUSED_SECONDS, "Stalled"),
}


@pytest.mark.parametrize(("reason", "expected"), FAILURES.items())
async def test_it_fails_alone_and_says_where(reason: AdapterReason, expected: tuple[str, float, str]) -> None:
    world = world_of(remote(), remote("good", "s3://bucket/good"))
    assert world.store is not None
    world.store.refuses[URI] = failed(reason)
    await world.converge()
    blamed, patience, progress = expected
    kinds = ["Resolved", "Verified", "Compatible", "Resident"]
    found = conditions(world)
    assert found[blamed] == ("False", reason)
    assert {found[kind] for kind in kinds[kinds.index(blamed) + 1 : 3]} <= {("Unknown", reason)}
    assert world.condition("Ready") == ("False", reason)
    assert "because" in world.message("Ready")
    assert world.condition(progress) == ("True", reason)
    assert set(world.told(IP)) == {"good@v1"}
    assert world.condition("Ready", name="good") == ("True", "Ready")
    warnings = [reason for kind, name, reason in world.cluster.said() if (kind, name) == ("Warning", "voice")]
    assert warnings == [reason, reason], "of the adapter and of the version, not of each condition"

    before = len(world.store.asked)
    del world.store.refuses[URI]
    await world.run()
    world.tick(patience)
    await world.converge()
    assert len(world.store.asked) > before
    assert world.condition("Ready") == ("True", "Ready")


async def test_a_mismatch_with_the_base_is_not_told() -> None:
    world = world_of()
    assert world.store is not None
    mismatch = Refusal(reason=AdapterReason.RANK_TOO_LARGE, message="rank 128 is above 64")
    world.store.refuses[URI] = ArtifactReport(
        state=ArtifactState.VERIFIED, digest=DIGEST, compatible=False, mismatch=mismatch, rank=128, size_bytes=10
    )
    await world.converge()
    assert conditions(world)["Verified"] == ("True", "Verified")
    assert conditions(world)["Compatible"] == ("False", "RankTooLarge")
    assert world.condition("Ready") == ("False", "RankTooLarge")
    assert world.told(IP) == {}


async def test_without_pods_the_base_is_unknown() -> None:
    world = world_of(pods=0)
    await world.converge()
    assert conditions(world)["Verified"] == ("True", "Verified")
    assert conditions(world)["Compatible"] == ("Unknown", "BaseUnknown")
    assert world.condition("Ready") == ("False", "NoPods")


async def test_without_a_store_it_says_so() -> None:
    world = world_of(store=False)
    await world.converge()
    assert conditions(world)["Resolved"] == ("False", "StoreNotConfigured")
    assert world.condition("Ready") == ("False", "StoreNotConfigured")
    assert world.condition("Stalled") == ("True", "StoreNotConfigured")


async def test_a_silent_store_takes_nothing_away() -> None:
    world = world_of()
    await world.converge()
    assert world.store is not None
    world.store.silent = True
    world.restart()
    await world.converge()
    assert world.condition("Ready") == ("True", "Ready")
    assert set(world.told(IP)) == {"voice@v1"}
    world.cluster.put(Kind.LORA_ADAPTER, remote("new", "s3://bucket/new"))
    await world.converge()
    assert world.condition("Resolved", "v1", "new") == ("Unknown", "StoreUnreachable")
    assert world.condition("Ready", name="new")[0] == "False"


async def test_what_turns_out_too_large_for_the_pods_does_not_come_and_go() -> None:
    world = world_of()
    world.pods.pods[IP].sizes["voice@v1"] = 600
    world.pods.pods[IP].capacity = 500
    await world.converge()
    assert world.told(IP) == {}
    assert world.status()["versions"][0]["sizeBytes"] == 600, "the store had said 10"
    assert world.condition("Ready") == ("False", "DoesNotFit")
    assert conditions(world)["Compatible"] == ("True", "Compatible")
    world.pods.pods[IP].capacity = 700
    await world.converge()
    assert world.condition("Ready") == ("True", "Ready")


@pytest.mark.parametrize("said", [AdapterReason.FETCH_FAILED, AdapterReason.SOURCE_NOT_FOUND])
async def test_a_pod_that_cannot_fetch_makes_it_ask_again(said: AdapterReason) -> None:
    """The store is silent, or it has lost what it had."""
    world = world_of()
    await world.converge()
    assert world.store is not None
    world.pods.pods[IP].broken["voice@v1"] = said
    before = len(world.store.asked)
    await world.run()
    world.tick(WORRIED_SECONDS)
    await world.run()
    assert len(world.store.asked) > before
    assert conditions(world)["Resident"] == ("False", said)
    assert conditions(world)["Resolved"] == ("True", "Resolved")


async def test_everything_that_is_named_is_kept_by_the_store() -> None:
    spec = remote("pinned", "s3://bucket/pinned", digest=DIGEST)
    world = world_of(remote(), spec)
    await world.converge()
    assert world.store is not None

    async def no_sleep(seconds: float) -> None: ...

    loop = ReferenceLoop(world.store, world.index, lambda: True, no_sleep)
    await loop.send()
    assert world.store.references is not None
    assert world.store.references.digests == sorted([DIGEST, digest_of(URI)])
    world.store.silent = True
    await loop.send()


async def test_the_base_of_a_pod_of_an_earlier_template_is_kept_by_the_store() -> None:
    world = world_of()
    await world.converge()
    pod = ready_pod()
    pod["spec"] = {"initContainers": [{"name": "fetch", "args": ["fetch", f"--artifact={DIGEST}"]}]}
    world.cluster.put(Kind.POD, pod)
    await world.converge()
    assert await references(world) == sorted([DIGEST, digest_of(URI)])


async def test_what_cannot_be_understood_of_a_status_makes_nobody_forget_a_digest() -> None:
    world = world_of()
    await world.converge()
    raw = copy.deepcopy(world.cluster.objects[Kind.LORA_ADAPTER, NAMESPACE, "voice"])
    raw["status"]["observedGeneration"] = "first"
    raw["status"]["versions"][0]["conditions"][0]["status"] = "Perhaps"
    world.cluster.put(Kind.LORA_ADAPTER, raw)
    assert world.store is not None
    world.store.moved[URI] = DIGEST
    world.restart()
    world.cluster.show(world.index)
    assert await references(world) == [digest_of(URI)]
    await world.converge()
    assert world.told(IP)["voice@v1"].digest == digest_of(URI)
    assert world.condition("Ready") == ("True", "Ready")


async def test_a_spec_that_cannot_be_understood_takes_nothing_away() -> None:
    world = world_of()
    await world.converge()
    told = world.told(IP)
    raw = copy.deepcopy(world.cluster.objects[Kind.LORA_ADAPTER, NAMESPACE, "voice"])
    raw["spec"]["residency"] = "Sometimes"
    raw["metadata"]["generation"] = 2
    world.cluster.put(Kind.LORA_ADAPTER, raw)
    world.restart()
    await world.converge()
    assert world.told(IP) == told
    assert world.split() == {"v1": 1}
    assert world.condition("Ready") == ("False", "InvalidSpec")
    assert world.message("Ready").startswith("spec.residency: ")
    raw["spec"]["residency"] = "Required"
    raw["metadata"]["generation"] = 3
    raw["status"] = world.status()
    world.cluster.put(Kind.LORA_ADAPTER, raw)
    await world.converge()
    assert world.condition("Ready") == ("True", "Ready")


async def references(world: AdapterWorld) -> list[str]:
    """What the store is told to keep."""

    async def no_sleep(seconds: float) -> None: ...

    assert world.store is not None
    await ReferenceLoop(world.store, world.index, lambda: True, no_sleep).send()
    assert world.store.references is not None
    return world.store.references.digests
