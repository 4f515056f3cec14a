"""Who may put adapters where, how many, and which of them the pods hold when there is not room for all."""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from motet_api.errors import ErrorCode
from motet_api.reasons import AdapterReason, Reason
from tests.e2e.looking import look
from tests.e2e.objects import Manifest, adapter, model_deployment, source
from tests.e2e.origins import origins, web_uri
from tests.e2e.values import MOST_ADAPTERS, NARROW, RESTRICTED
from tests.e2e.world import World, condition
from tests.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

LABELS = {"team": "scoring"}
HEAVY = {"hostMemory": "1Mi", "disk": "1Mi", "maxRank": 128, "claimNames": ["material"]}
"""A pod has room for two adapters of rank 128."""


@pytest.fixture(scope="module")
def home(world: World) -> World:
    """A model that takes adapters from namespaces with a label."""
    selector = {"from": "Selector", "selector": {"matchLabels": LABELS}}
    adapters = {"maxRank": 16, "claimNames": ["material"], "allowedNamespaces": selector}
    world.apply(model_deployment(world.namespace, "tiny", adapters=adapters))
    world.apply(adapter(world.namespace, "voice", "tiny", {"v1": source("voice-1")}))
    world.wait_ready("mdep/tiny", "lora/voice")
    return world


@pytest.fixture(scope="module")
def guests(home: World) -> Iterator[World]:
    """Another namespace, of which policy says that it may have few adapters."""
    kubectl = home.installation.cluster.kubectl
    kubectl("create", "namespace", NARROW)
    kubectl("label", "namespace", NARROW, RESTRICTED)
    cluster = home.installation.cluster
    with origins(cluster, cluster.paths.root / "origins") as found:
        found.onto_web(home.material / "voice-2", "voice-2")
        yield World(home.installation, NARROW, home.material, home.url, home.api)
    kubectl("delete", "namespace", NARROW, "--wait=false")


def guest(home: World, name: str, where: Manifest | None = None) -> Manifest:
    """An adapter of the other namespace for this one's model."""
    made = adapter(NARROW, name, "tiny", {"v1": where or {"uri": web_uri("voice-2")}})
    made["spec"]["modelRef"]["namespace"] = home.namespace
    return made


def ready(world: World, name: str) -> tuple[str, str, str]:
    """Status, reason and message of the Ready condition."""
    found = condition(world.read("lora", name), "Ready")
    return found["status"], found["reason"], found["message"]


def becomes(world: World, name: str, reason: str) -> str:
    """Wait for the Ready condition's reason; returns its message."""
    return eventually(partial(ready, world, name), lambda found: found[1] == reason, 40, f"{name} {reason}")[2]


def test_a_namespace_is_let_in_by_its_labels(home: World, guests: World) -> None:
    """Two adapters of one name: each is its namespace's own, on the same pod."""
    guests.apply(guest(home, "voice"))
    message = becomes(guests, "voice", Reason.NOT_ALLOWED)
    assert "team=scoring" in message
    refused = eventually(lambda: guests.ask("voice@v1"), lambda found: found.status != 404, 5, "heard of")
    assert (refused.status, refused.code) == (503, ErrorCode.ADAPTER_NOT_READY)
    label = ",".join(f"{key}={value}" for key, value in LABELS.items())
    home.installation.cluster.kubectl("label", "namespace", NARROW, label)
    becomes(guests, "voice", Reason.READY)
    theirs = guests.served("voice")
    ours = home.ask("voice")
    assert ours.status == 200
    assert theirs.text != ours.text
    assert home.read("mdep", "tiny")["status"]["adapters"]["desired"] == 2


def test_a_quota_refuses_the_youngest_until_there_is_room(home: World, guests: World) -> None:
    guests.apply(guest(home, "second"))
    becomes(guests, "second", Reason.READY)
    guests.apply(guest(home, "third"))
    message = becomes(guests, "third", Reason.QUOTA_EXCEEDED)
    assert f"{MOST_ADAPTERS} adapters" in message
    eventually(lambda: guests.ask("third").status, (503).__eq__, 5, "an error by name")
    guests.kubectl("delete", "lora", "second")
    becomes(guests, "third", Reason.READY)
    guests.kubectl("delete", "lora", "third")


def test_the_claims_of_the_model_are_not_for_guests(home: World, guests: World) -> None:
    """The pods could read them: what lies there is its own namespace's."""
    guests.apply(guest(home, "reader", source("voice-1")))
    message = becomes(guests, "reader", Reason.NOT_ALLOWED)
    assert "pvc://material/voice-1" in message
    guests.kubectl("delete", "lora", "reader")


def test_a_source_that_policy_does_not_give_is_refused(home: World, guests: World) -> None:
    guests.apply(guest(home, "elsewhere", {"uri": "s3://adapters/voice"}))
    message = becomes(guests, "elsewhere", AdapterReason.SOURCE_NOT_ALLOWED)
    assert "s3://adapters/voice" in message
    guests.kubectl("delete", "lora", "elsewhere")


def test_a_namespace_loses_its_label(home: World, guests: World) -> None:
    """What it has goes from the pods, and is an error by name; others serve."""
    home.installation.cluster.kubectl("label", "namespace", NARROW, *(f"{key}-" for key in LABELS))
    becomes(guests, "voice", Reason.NOT_ALLOWED)
    gone = eventually(lambda: guests.ask("voice"), lambda answer: answer.status != 200, 10, "refused")
    assert (gone.status, gone.code) == (503, ErrorCode.ADAPTER_NOT_READY)
    eventually(lambda: [set(seen.held) for seen in look(home, "tiny")], [{"voice@v1"}].__eq__, 15, "unloaded")
    assert home.ask("voice").status == 200


def test_an_adapter_on_demand_is_loaded_by_the_first_request(home: World) -> None:
    home.apply(adapter(home.namespace, "rare", "tiny", {"v1": source("voice-3")}, residency="OnDemand"))
    home.wait_ready("lora/rare")
    assert [seen.held.get("rare@v1") for seen in look(home, "tiny")] == [AdapterReason.STANDBY]
    before = home.read("lora", "rare")["metadata"]["resourceVersion"]
    answer = home.served("rare")
    assert answer.version == "v1"
    assert answer.text not in {home.ask("tiny").text, home.ask("voice").text}
    assert [seen.held.get("rare@v1") for seen in look(home, "tiny")] == [AdapterReason.RESIDENT]
    assert home.read("lora", "rare")["metadata"]["resourceVersion"] == before, "a request is no change of status"


def heavy(world: World, name: str, **more: Any) -> Manifest:
    """An adapter of which a pod can hold two."""
    return adapter(world.namespace, name, "small", {"v1": source("rank-128")}, **more)


def places(world: World, names: list[str]) -> dict[str, int]:
    """On how many pods each adapter is resident."""
    looks = look(world, "small")
    return {name: sum(seen.resident(f"{name}@v1") for seen in looks) for name in names}


def test_what_is_preferred_goes_where_there_is_room(home: World) -> None:
    """Three on two pods with four places; then one that is required takes two of these, and one of the three is out."""
    preferred = ["first", "second", "third"]
    home.apply(model_deployment(home.namespace, "small", replicas=2, adapters=HEAVY))
    home.wait_ready("mdep/small", seconds=120)
    home.apply(*(heavy(home, name, residency="Preferred") for name in preferred))
    home.wait_ready(*(f"lora/{name}" for name in preferred))
    eventually(lambda: sorted(places(home, preferred).values()), [1, 1, 2].__eq__, 20, "four places taken")
    for name in preferred:
        answer = home.served(name)
        holders = [seen.pod for seen in look(home, "small") if seen.resident(f"{name}@v1")]
        assert answer.pod in holders
    home.apply(heavy(home, "must"))
    home.wait_ready("lora/must")
    eventually(lambda: places(home, ["must"]), {"must": 2}.__eq__, 20, "on every pod")

    def refused() -> list[str]:
        return [name for name in preferred if ready(home, name)[1] == Reason.DOES_NOT_FIT]

    (out,) = eventually(refused, lambda names: len(names) == 1, 30, "one that does not fit")
    message = ready(home, out)[2]
    for pod in home.pods("small"):
        assert f"bytes are missing on {pod['metadata']['name']}" in message
    assert "hostMemory" in message
    said = home.ask(out)
    assert (said.status, said.code) == (503, ErrorCode.ADAPTER_NOT_READY)
    assert {home.ask(name).status for name in [*preferred, "must"] if name != out} == {200}
    home.kubectl("delete", "lora", "must")
    home.wait_ready(f"lora/{out}")


def test_the_words_are_in_the_events(home: World, guests: World) -> None:
    """Whoever describes the object reads why: the refusals are Warnings."""

    def warnings(world: World) -> set[str]:
        events = world.get("/apis/events.k8s.io/v1/namespaces/{}/events")["items"]
        return {event["reason"] for event in events if event["type"] == "Warning"}

    assert {Reason.NOT_ALLOWED, Reason.QUOTA_EXCEEDED, AdapterReason.SOURCE_NOT_ALLOWED} <= warnings(guests)
    assert Reason.DOES_NOT_FIT in warnings(home)
    described = home.kubectl("describe", "mdep", "small")
    assert json.dumps(HEAVY["hostMemory"]).strip('"') in described
