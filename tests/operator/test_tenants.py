"""Several namespaces, several models, quotas and room: who is told of what, and what the others are told why not."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from motet_api.policy import Policy
from motet_operator.adapters.quota import Usage
from motet_operator.keys import Kind, ModelKey
from motet_operator.kube.index import Index
from motet_operator.policy_source import PolicySource
from tests.operator.adapter_world import AdapterWorld, FakePod, at, digest_of
from tests.operator.factories import DIGEST, KEY, MODEL, NAMESPACE, NOW, adapter, raw_adapter, raw_model
from tests.operator.test_reconciler import IP, ready_pod
from tests.operator.test_store_versions import references, remote

OTHER = ModelKey(NAMESPACE, "llama-new")
OTHER_IP = "10.0.0.9"


def world_of(*adapters: dict[str, Any], policy: Policy | None = None, store: bool = False, **spec: Any) -> AdapterWorld:
    """A model with one pod and these adapters."""
    world = AdapterWorld(policy=policy, store=store)
    world.cluster.put(Kind.MODEL_DEPLOYMENT, raw_model(**spec))
    world.pods.pods[IP] = FakePod()
    world.cluster.put(Kind.POD, ready_pod())
    for raw in adapters:
        world.cluster.put(Kind.LORA_ADAPTER, raw)
    return world


def guest_of(uri: str = "s3://bucket/guest") -> dict[str, Any]:
    """An adapter of another namespace."""
    raw = remote("guest", uri)
    raw["metadata"]["namespace"] = "elsewhere"
    raw["spec"]["modelRef"] = {"name": MODEL, "namespace": NAMESPACE}
    return raw


def aged(name: str, days: int) -> dict[str, Any]:
    """An adapter made so many days ago."""
    raw = raw_adapter(name)
    raw["metadata"]["creationTimestamp"] = at(NOW - timedelta(days=days))
    return raw


async def test_the_oldest_keep_their_quota() -> None:
    policy = Policy.model_validate({"default": {"maxAdapters": 2}})
    world = world_of(aged("young", 1), aged("old", 9), aged("older", 10), policy=policy)
    await world.converge()
    assert set(world.told(IP)) == {"old@v1", "older@v1"}
    assert world.condition("Ready", name="young") == ("False", "QuotaExceeded")
    assert world.condition("Stalled", name="young") == ("True", "QuotaExceeded")
    assert "may have 2 adapters" in world.message("Ready", name="young")

    raw = world.cluster.objects.pop((Kind.LORA_ADAPTER, NAMESPACE, "old"))
    assert world.index.remove(Kind.LORA_ADAPTER, raw) == {KEY}
    await world.converge()
    assert world.condition("Ready", name="young") == ("True", "Ready")


async def test_bytes_are_counted_once_they_are_known() -> None:
    policy = Policy.model_validate({"default": {}, "namespaces": {NAMESPACE: {"maxBytes": 25}}})
    world = world_of(aged("a", 3), aged("b", 2), aged("c", 1), policy=policy)
    await world.converge()
    assert set(world.told(IP)) == {"a@v1", "b@v1"}
    assert "leaves 5, and it has 10" in world.message("Ready", name="c")
    assert world.condition("Ready", name="a") == ("True", "Ready")


POLICIES = {
    "not from there": ({"allowedSources": ["s3://*"]}, "SourceNotAllowed", "Resolved"),
    "not without a signature": ({"signature": {"publicKeys": ["key"]}}, "SignatureMissing", "Verified"),
}


@pytest.mark.parametrize(("rules", "reason", "kind"), POLICIES.values(), ids=POLICIES)
async def test_policy_holds_for_sources_that_pods_read_themselves(
    rules: dict[str, Any], reason: str, kind: str
) -> None:
    world = world_of(raw_adapter(), policy=Policy.model_validate({"namespaces": {NAMESPACE: rules}}))
    await world.converge()
    assert world.told(IP) == {}
    assert world.condition("Ready") == ("False", reason)
    assert world.condition("Stalled") == ("True", reason)
    assert world.condition(kind, "v1") == ("False", reason)
    world.policy = Policy()
    await world.converge()
    assert world.condition("Ready") == ("True", "Ready")


async def test_a_stranger_that_is_not_allowed_is_no_matter_of_the_model() -> None:
    world = world_of(raw_adapter(), guest_of())
    await world.converge()
    status = world.cluster.objects[Kind.MODEL_DEPLOYMENT, NAMESPACE, MODEL]["status"]
    assert status["adapters"]["summary"] == "1/1"
    assert {entry["type"]: entry["status"] for entry in status["conditions"]}["AdaptersResident"] == "True"


async def test_a_version_too_much_takes_nothing_from_those_that_serve() -> None:
    policy = Policy.model_validate({"default": {"maxBytes": 25}})
    world = world_of(aged("old", 3), aged("young", 2), policy=policy)
    await world.converge()
    for versions in (("v1", "v2"), ("v2", "v1")):
        more = raw_adapter("old", versions=versions, traffic={"v1": 1}, status=world.status("old"))
        more["metadata"]["creationTimestamp"] = at(NOW - timedelta(days=3))
        world.cluster.put(Kind.LORA_ADAPTER, more)
        await world.converge()
        assert set(world.told(IP)) == {"old@v1", "young@v1"}
        assert world.split("old") == {"v1": 1}
        assert world.condition("Ready", name="old") == ("False", "QuotaExceeded")
        assert world.condition("Resident", "v1", "old") == ("True", "Resident")
        assert "leaves 5, and it has 10" in world.message("Resident", "v2", "old")
        assert world.condition("Ready", name="young") == ("True", "Ready")


async def test_what_is_beyond_a_quota_is_not_fetched_and_not_kept_by_the_store() -> None:
    policy = Policy.model_validate({"default": {"maxBytes": 25}})
    many = [remote(f"a{number}", f"s3://bucket/{number}") for number in range(6)]
    world = world_of(*many, policy=policy, store=True)
    await world.converge()
    assert world.store is not None
    assert world.store.fetched == {"s3://bucket/0", "s3://bucket/1"}
    assert set(world.told(IP)) == {"a0@v1", "a1@v1"}
    assert world.condition("Ready", name="a1") == ("True", "Ready")
    for name in ("a2", "a5"):
        assert world.condition("Ready", name=name) == ("False", "QuotaExceeded")
        assert "leaves 5, and it has 10" in world.message("Ready", name=name)
    assert await references(world) == sorted(digest_of(f"s3://bucket/{number}") for number in range(2))
    bounds = {entry.max_bytes for asked in world.store.asked for entry in asked}
    assert bounds == {0, 10, None}, "listed, then given its bytes, then of a digest"
    idle = len(world.store.asked)
    await world.run()
    assert len(world.store.asked) == idle

    for number in range(2):
        raw = world.cluster.objects.pop((Kind.LORA_ADAPTER, NAMESPACE, f"a{number}"))
        world.index.remove(Kind.LORA_ADAPTER, raw)
    await world.converge()
    assert set(world.told(IP)) == {"a2@v1", "a3@v1"}
    assert (world.status("a2")["versions"][0]["rank"], world.status("a2")["versions"][0]["sizeBytes"]) == (8, 10)


async def test_a_quota_that_shrinks_leaves_its_versions_out_of_what_the_store_keeps() -> None:
    world = world_of(remote("a", "s3://bucket/a"), remote("b", "s3://bucket/b", digest=DIGEST), store=True)
    await world.converge()
    assert await references(world) == sorted([DIGEST, digest_of("s3://bucket/a")])
    world.policy = Policy.model_validate({"default": {"maxBytes": 10}})
    await world.converge()
    assert world.condition("Ready", name="b") == ("False", "QuotaExceeded")
    assert await references(world) == [digest_of("s3://bucket/a")]


async def test_a_quota_takes_nothing_from_what_was_fetched_before_there_was_one() -> None:
    world = world_of(remote("a", "s3://bucket/a"), store=True)
    await world.converge()
    world.policy = Policy.model_validate({"default": {"maxBytes": 10}})
    world.restart()
    await world.converge()
    assert world.condition("Ready", name="a") == ("True", "Ready")
    assert world.store is not None
    assert {entry.max_bytes for asked in world.store.asked for entry in asked} == {None}


def test_usage_is_kept_up_to_date() -> None:
    usage, two = Usage(), Policy.model_validate({"default": {"maxAdapters": 2}}).default
    for name in ("a", "b", "c"):
        usage.put(adapter(name))
    assert set(usage.beyond(NAMESPACE, two)) == {"c"}
    assert usage.beyond(NAMESPACE, Policy().default) == {}
    assert usage.beyond("elsewhere", two) == {}
    usage.put(adapter("a"))
    usage.drop(NAMESPACE, "b")
    assert usage.beyond(NAMESPACE, two) == {}
    usage.drop(NAMESPACE, "never")
    for name in ("a", "c"):
        usage.drop(NAMESPACE, name)
    assert usage.refused(NAMESPACE) == {}


async def test_what_does_not_fit_says_how_many_bytes_are_missing_where() -> None:
    world = world_of(raw_adapter("a"), raw_adapter("b"))
    world.pods.pods[IP].sizes = {"a@v1": 600, "b@v1": 500}
    await world.converge()
    world.pods.pods[IP].capacity = 1000
    await world.converge()
    refused = [name for name in ("a", "b") if world.condition("Ready", name=name) != ("True", "Ready")]
    assert refused == ["b"]
    assert world.condition("Resident", "v1", "b") == ("False", "DoesNotFit")
    assert "it needs 500 bytes (Required)" in world.message("Ready", name="b")
    assert "100 bytes are missing on llama-a" in world.message("Ready", name="b")
    assert set(world.told(IP)) == {"a@v1"}


async def test_preferred_and_on_demand() -> None:
    adapters = [raw_adapter(name) for name in ("must", "may", "lazy")]
    adapters[1]["spec"]["residency"] = "Preferred"
    adapters[2]["spec"]["residency"] = "OnDemand"
    world = world_of(*adapters)
    world.pods.pods[OTHER_IP] = FakePod()
    world.cluster.put(Kind.POD, ready_pod("llama-b", OTHER_IP))
    await world.converge()
    assert set(world.told(IP)) == set(world.told(OTHER_IP)) == {"must@v1", "may@v1", "lazy@v1"}
    assert world.told(IP)["lazy@v1"].residency == "OnDemand"
    world.pods.pods[IP].capacity = 15
    await world.converge()
    assert set(world.told(IP)) == {"must@v1", "lazy@v1"}
    assert set(world.told(OTHER_IP)) == {"must@v1", "lazy@v1"}, "one that does not say counts as the smallest"
    assert "5 bytes are missing on llama-a" in world.message("Ready", name="may")
    world.pods.pods[OTHER_IP].capacity = 20
    await world.converge()
    assert set(world.told(IP)) == {"must@v1", "lazy@v1"}
    assert set(world.told(OTHER_IP)) == {"must@v1", "may@v1", "lazy@v1"}
    assert world.condition("Ready", name="may") == ("True", "Ready")
    assert world.condition("Resident", "v1", "lazy") == ("True", "Standby")


async def test_versions_on_two_models() -> None:
    raw = raw_adapter(versions=("v1", "v2"), traffic={"v1": 1, "v2": 1})
    raw["spec"]["versions"][1]["modelRef"] = {"name": OTHER.name}
    world = world_of(raw)
    await world.converge(KEY, OTHER)
    assert world.condition("Resident", "v2") == ("Unknown", "ModelDeploymentNotFound")
    assert world.split() == {}

    world.cluster.put(Kind.MODEL_DEPLOYMENT, raw_model(name=OTHER.name))
    pod = ready_pod("new-a", OTHER_IP)
    pod["metadata"]["labels"] = {"motet.dev/model-deployment": OTHER.name}
    world.pods.pods[OTHER_IP] = FakePod()
    world.cluster.put(Kind.POD, pod)
    world.cluster.writes.clear()
    await world.converge(KEY, OTHER)
    assert (set(world.told(IP)), set(world.told(OTHER_IP))) == ({"voice@v1"}, {"voice@v2"})
    assert world.split() == {"v1": 1, "v2": 1}
    assert world.condition("Ready") == ("True", "Ready")
    assert OTHER in world.woken, "the other model looks when its version's status changes"


def test_an_object_of_another_model_wakes_the_home() -> None:
    index = Index()
    raw = raw_adapter(versions=("v1", "v2"), traffic={"v1": 1})
    raw["spec"]["versions"][1]["modelRef"] = {"name": OTHER.name}
    assert index.put(Kind.LORA_ADAPTER, raw) == {KEY, OTHER}
    assert index.put(Kind.MODEL_DEPLOYMENT, raw_model(name=OTHER.name)) == {KEY, OTHER}
    assert index.put(Kind.MODEL_DEPLOYMENT, raw_model()) == {KEY}
    assert index.remove(Kind.LORA_ADAPTER, raw) == {KEY, OTHER}
    assert index.remove(Kind.MODEL_DEPLOYMENT, raw_model(name=OTHER.name)) == {OTHER}


async def test_the_labels_of_a_namespace_decide_and_wake() -> None:
    selector = {"from": "Selector", "selector": {"matchLabels": {"team": "speech"}}}
    world = world_of(guest_of(), store=True, adapters={"allowedNamespaces": selector})
    await world.converge()
    assert world.told(IP) == {}
    metadata = {"name": "elsewhere", "uid": "ns", "resourceVersion": "500", "labels": {"team": "speech"}}
    assert world.index.put(Kind.NAMESPACE, {"metadata": metadata}) == {KEY}
    assert world.index.put(Kind.NAMESPACE, {"metadata": metadata | {"resourceVersion": "501"}}) == set()
    await world.converge()
    assert set(world.told(IP)) == {"elsewhere/guest@v1"}
    assert world.index.remove(Kind.NAMESPACE, {"metadata": metadata}) == {KEY}
    await world.converge()
    assert world.told(IP) == {}


async def test_an_adapter_of_another_namespace_that_is_allowed_is_told_by_its_full_name() -> None:
    world = world_of(raw_adapter("guest"), guest_of(), store=True, adapters={"allowedNamespaces": {"from": "All"}})
    await world.converge()
    assert set(world.told(IP)) == {"guest@v1", "elsewhere/guest@v1"}
    status = world.cluster.objects[Kind.LORA_ADAPTER, "elsewhere", "guest"]["status"]
    assert status["traffic"] == [{"version": "v1", "weight": 1}]


@pytest.mark.parametrize("uri", ["pvc://models/llama", "file:///etc/motet"])
async def test_what_belongs_to_a_models_namespace_is_not_read_for_another(uri: str) -> None:
    world = world_of(raw_adapter(), guest_of(uri), adapters={"allowedNamespaces": {"from": "All"}})
    await world.converge()
    assert set(world.told(IP)) == {"voice@v1"}, "of its own namespace it may"
    status = world.cluster.objects[Kind.LORA_ADAPTER, "elsewhere", "guest"]["status"]
    (ready,) = [entry for entry in status["conditions"] if entry["type"] == "Ready"]
    assert (ready["status"], ready["reason"]) == ("False", "NotAllowed")
    assert f"source.uri {uri} would be read by the pods of ModelDeployment {NAMESPACE}/{MODEL}" in ready["message"]
    assert "name a source that the adapter store fetches" in ready["message"]


def test_a_policy_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("default: {maxAdapter: 3}")
    with pytest.raises(ValueError, match=r"default\.maxAdapter"):
        PolicySource(path)
    path.write_text("default: [")
    with pytest.raises(ValueError, match="not YAML"):
        PolicySource(path)


async def test_a_policy_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("default: {maxAdapters: 3}")
    source = PolicySource(path)
    assert source.current.of("x").max_adapters == 3
    texts = iter(["default: {maxAdapters: 4}", "default: {maxAdapters: 4}", "default: nonsense", None])
    changes = 0

    def changed() -> None:
        nonlocal changes
        changes += 1

    async def sleep(seconds: float) -> None:
        text = next(texts)
        if text is None:
            raise StopAsyncIteration
        path.write_text(text)

    with pytest.raises(StopAsyncIteration):
        await source.run(changed, sleep)
    assert (changes, source.current.of("x").max_adapters) == (1, 4)
    assert PolicySource(None).current == Policy()
