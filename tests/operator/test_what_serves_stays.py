"""What was verified and serves is taken away by nothing but policy: not by a store that lost it, nor by a limit."""

import copy
from typing import Any

import pytest

from motet_api.policy import NamespacePolicy, Policy
from motet_api.reasons import AdapterReason
from motet_operator.clients.artifacts import REFUSED_SECONDS
from motet_operator.keys import Kind
from tests.operator.adapter_world import AdapterWorld, FakePod, digest_of
from tests.operator.factories import NAMESPACE, raw_model
from tests.operator.test_reconciler import IP, ready_pod
from tests.operator.test_store_versions import URI, conditions, failed, remote, world_of

OTHER_IP = "10.0.0.2"
POLICY = [reason for reason in AdapterReason if reason.by_policy]
STORE = [
    AdapterReason.FETCH_FAILED,
    AdapterReason.SOURCE_NOT_FOUND,
    AdapterReason.SOURCE_FORBIDDEN,
    AdapterReason.SECRET_NOT_FOUND,
    AdapterReason.DIGEST_MISMATCH,
    AdapterReason.STORE_FULL,
    AdapterReason.TOO_LARGE,
    AdapterReason.LOAD_FAILED,
    AdapterReason.UNSAFE_FORMAT,
    AdapterReason.UNSUPPORTED,
]
ALL_TRUE = {kind: ("True", kind) for kind in ("Resolved", "Verified", "Compatible", "Resident")}


async def lost(reason: AdapterReason, world: AdapterWorld | None = None) -> AdapterWorld:
    """It served, and the store has it no more, nor can it have it again."""
    world = world or world_of()
    await world.converge()
    assert world.condition("Ready") == ("True", "Ready")
    assert world.store is not None
    world.store.refuses[URI] = failed(reason)
    world.restart()
    await world.converge()
    return world


@pytest.mark.parametrize("reason", STORE)
async def test_a_store_that_cannot_get_it_again_takes_nothing_away(reason: AdapterReason) -> None:
    world = await lost(reason)
    assert world.told(IP)["voice@v1"].digest == digest_of(URI)
    assert world.split() == {"v1": 1}
    assert world.condition("Ready") == ("True", "Ready")
    assert conditions(world) == ALL_TRUE
    said = [world.message(kind, "v1") for kind in ("Resolved", "Verified", "Compatible")]
    assert len([message for message in said if message.endswith("it was found before, and now: because")]) == 1
    assert said[0].startswith(digest_of(URI))

    assert world.store is not None
    del world.store.refuses[URI]
    world.tick(REFUSED_SECONDS)
    await world.converge()
    assert world.message("Resolved", "v1") == digest_of(URI), "what is over is not said any more"


@pytest.mark.parametrize("reason", POLICY)
async def test_policy_does(reason: AdapterReason) -> None:
    world = await lost(reason)
    assert world.told(IP) == {}
    assert world.condition("Ready") == ("False", reason)


async def test_policy_of_the_installation_does_for_what_pods_read_themselves() -> None:
    world = AdapterWorld()
    world.cluster.put(Kind.MODEL_DEPLOYMENT, raw_model())
    world.cluster.put(Kind.LORA_ADAPTER, remote(uri="pvc://adapters/x"))
    world.pods.pods[IP] = FakePod()
    world.cluster.put(Kind.POD, ready_pod())
    await world.converge()
    world.policy = Policy(default=NamespacePolicy(allowed_sources=["hf://org/*"]))
    await world.converge()
    assert world.told(IP) == {}
    assert world.condition("Ready") == ("False", "SourceNotAllowed")


async def test_an_installation_that_gives_up_its_store_keeps_what_serves() -> None:
    world = world_of()
    await world.converge()
    world.asks(None)
    await world.converge()
    assert set(world.told(IP)) == {"voice@v1"}
    assert world.condition("Ready") == ("True", "Ready")
    assert "there is none" in world.message("Resolved", "v1")


async def test_what_never_was_verified_is_not_told_because_its_digest_is_known() -> None:
    pinned = remote(digest=digest_of(URI))
    world = world_of(pinned)
    assert world.store is not None
    world.store.refuses[URI] = failed(AdapterReason.SOURCE_FORBIDDEN)
    await world.converge()
    assert world.told(IP) == {}
    assert conditions(world)["Resolved"] == ("False", "SourceForbidden")


@pytest.mark.parametrize(("reason", "progress"), [("FetchFailed", "Reconciling"), ("SourceForbidden", "Stalled")])
async def test_a_new_pod_is_told_and_says_that_it_cannot(reason: str, progress: str) -> None:
    world = await lost(AdapterReason(reason))
    world.pods.pods[OTHER_IP] = FakePod(broken={"voice@v1": AdapterReason.FETCH_FAILED})
    starting = ready_pod("llama-1", OTHER_IP)
    starting["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
    world.cluster.put(Kind.POD, starting)
    await world.converge()
    assert world.told(OTHER_IP)["voice@v1"].digest == digest_of(URI), "so that it waits, and takes it once it is there"
    assert world.condition("Ready") == ("True", "Ready")
    world.cluster.put(Kind.POD, ready_pod("llama-1", OTHER_IP))
    await world.converge()
    assert world.condition("Ready") == ("False", reason), "why the store has none, not that the pod got none"
    assert "because; so FetchFailed (on llama-1)" in world.message("Ready")
    assert world.condition(progress) == ("True", reason)
    assert world.split() == {"v1": 1}
    assert set(world.told(IP)) == {"voice@v1"}


async def test_what_an_older_status_calls_failed_stays_where_it_serves() -> None:
    world = world_of()
    await world.converge()
    raw = copy.deepcopy(world.cluster.objects[Kind.LORA_ADAPTER, NAMESPACE, "voice"])
    for condition in raw["status"]["versions"][0]["conditions"]:
        if condition["type"] in {"Resolved", "Verified"}:
            condition |= {"status": "False", "reason": "FetchFailed"}
    world.cluster.put(Kind.LORA_ADAPTER, raw)
    assert world.store is not None
    world.store.refuses[URI] = failed(AdapterReason.FETCH_FAILED)
    world.restart()
    await world.converge()
    assert set(world.told(IP)) == {"voice@v1"}
    assert world.split() == {"v1": 1}


def lower_the_rank(world: AdapterWorld) -> None:
    raw: dict[str, Any] = raw_model(generation=2, adapters={"maxRank": 4})
    world.cluster.put(Kind.MODEL_DEPLOYMENT, raw)


async def test_a_lower_rank_takes_nothing_off_the_pods_that_serve() -> None:
    world = world_of()
    await world.converge()
    lower_the_rank(world)
    world.pods.pods[OTHER_IP] = FakePod(broken={"voice@v1": AdapterReason.RANK_TOO_LARGE})
    starting = ready_pod("llama-new", OTHER_IP)
    starting["metadata"]["labels"]["pod-template-hash"] = "new"
    starting["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
    world.cluster.put(Kind.POD, starting)
    await world.converge()
    assert set(world.told(IP)) == {"voice@v1"}
    assert world.told(OTHER_IP)["voice@v1"].proven, "the pod that is to take its place waits for it, and the roll stops"
    assert world.split() == {"v1": 1}
    assert world.condition("Ready") == ("True", "Ready")
    assert world.condition("Compatible", "v1") == ("False", "RankTooLarge")


async def test_a_pod_that_is_silent_may_be_one_that_serves_it() -> None:
    world = world_of()
    await world.converge()
    lower_the_rank(world)
    world.pods.pods[IP].silent = True
    await world.converge()
    assert world.condition("Ready") == ("Unknown", "PodUnreachable")
    world.pods.pods[IP].silent = False
    await world.converge()
    assert set(world.told(IP)) == {"voice@v1"}


async def test_where_nobody_serves_it_a_rank_too_large_is_not_told() -> None:
    world = world_of()
    await world.converge()
    lower_the_rank(world)
    world.pods.pods[IP] = FakePod(broken={"voice@v1": AdapterReason.RANK_TOO_LARGE})
    await world.converge()
    assert world.told(IP) == {}
    assert world.condition("Ready") == ("False", "RankTooLarge")


HUB = "hf://org/voice"
COMMIT = "c0ffee" * 6 + "c0ff"


@pytest.mark.parametrize("uri", [HUB, "oci://registry/voice:latest"])
async def test_a_branch_or_tag_is_asked_for_by_what_it_was_at_first(uri: str) -> None:
    world = world_of(remote(uri=uri))
    assert world.store is not None
    world.store.revisions[uri] = COMMIT
    await world.converge()
    assert world.status()["versions"][0]["revision"] == COMMIT
    asked = len(world.store.asked)
    await world.run()
    assert len(world.store.asked) == asked, "that it is recorded is no reason to ask anew"
    world.restart()
    await world.converge()
    (last,) = world.store.asked[-1]
    assert (last.revision, last.digest) == (COMMIT, digest_of(uri))


async def test_where_a_state_has_no_name_the_digest_alone_holds() -> None:
    world = world_of()
    assert world.store is not None
    world.store.revisions[URI] = COMMIT
    await world.converge()
    world.restart()
    await world.converge()
    assert world.store.asked[-1][0].revision is None


async def test_a_signature_that_is_missed_is_looked_for_in_later_commits() -> None:
    world = world_of(remote(uri=HUB, revision="main"))
    assert world.store is not None
    world.store.revisions[HUB] = COMMIT
    await world.converge()
    world.store.refuses[HUB] = failed(AdapterReason.SIGNATURE_MISSING)
    world.restart()
    await world.converge()
    assert world.store.asked[-1][0].revision == "main"
    del world.store.refuses[HUB]
    world.store.revisions[HUB] = "d" * 40
    world.tick(REFUSED_SECONDS)
    await world.converge()
    assert world.status()["versions"][0]["revision"] == "d" * 40
    assert world.condition("Ready") == ("True", "Ready")
