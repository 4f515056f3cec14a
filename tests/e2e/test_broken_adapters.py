"""Adapters that cannot be loaded say why in a condition, and everything else goes on."""

from functools import partial

import pytest

from motet_api.errors import ErrorCode
from motet_api.reasons import AdapterReason
from tests.e2e.asking import Load
from tests.e2e.objects import adapter, model_deployment, source
from tests.e2e.world import World, condition
from tests.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

WRONG_DIGEST = "sha256:" + "0" * 64
BROKEN = {
    "truncated": (source("truncated"), AdapterReason.CORRUPT_WEIGHTS),
    "pickle": (source("pickle"), AdapterReason.UNSAFE_FORMAT),
    "large": (source("rank-32"), AdapterReason.RANK_TOO_LARGE),
    "other-base": (source("other-base"), AdapterReason.BASE_MISMATCH),
    "digest": (source("voice-2", digest=WRONG_DIGEST), AdapterReason.DIGEST_MISMATCH),
    "missing": (source("nowhere"), AdapterReason.SOURCE_NOT_FOUND),
}


@pytest.fixture(scope="module")
def broken(world: World) -> World:
    """A model with a sound adapter, and under load every broken one as well."""
    world.apply(model_deployment(world.namespace, "tiny"))
    world.apply(adapter(world.namespace, "good", "tiny", {"v1": source("voice-1")}))
    world.wait_ready("mdep/tiny", "lora/good")
    before = world.ask("good")
    with Load(world.url, [f"{world.namespace}/good"]) as load:
        world.apply(*(adapter(world.namespace, name, "tiny", {"v1": where}) for name, (where, _) in BROKEN.items()))
        for name, (_, reason) in BROKEN.items():
            eventually(partial(resident_reason, world, name), reason.__eq__, 60, f"{name}'s reason")
    assert load.failed == []
    assert {answer.text for answer in load.answers} == {before.text}
    return world


def resident_reason(world: World, name: str) -> str:
    """The reason of the Resident condition of version v1."""
    versions = world.read("lora", name).get("status", {}).get("versions", [])
    return str(condition(versions[0], "Resident")["reason"]) if versions else ""


@pytest.mark.parametrize("name", BROKEN)
def test_the_condition_says_why(broken: World, name: str) -> None:
    reason = BROKEN[name][1]
    item = broken.read("lora", name)
    resident = condition(item["status"]["versions"][0], "Resident")
    assert (resident["status"], resident["reason"]) == ("False", reason)
    assert resident["message"]
    ready = condition(item, "Ready")
    assert ready["status"] == "False"
    assert "v1" in ready["message"]


@pytest.mark.parametrize("name", BROKEN)
def test_a_request_to_it_is_an_error_by_name(broken: World, name: str) -> None:
    answer = broken.ask(f"{name}@v1")
    assert (answer.status, answer.code) == (503, ErrorCode.ADAPTER_NOT_READY)
    assert name in answer.message


def test_there_is_an_event_for_it(broken: World) -> None:
    def events() -> str:
        which = "involvedObject.name=truncated,type=Warning"
        return broken.kubectl("get", "events", "--field-selector", which, "-o", "jsonpath={.items[*].reason}")

    eventually(events, lambda reasons: AdapterReason.CORRUPT_WEIGHTS in reasons, 10, "a Warning with the reason")


def test_the_model_counts_them_and_serves(broken: World) -> None:
    def counts() -> dict[str, int]:
        found: dict[str, int] = broken.read("mdep", "tiny")["status"]["adapters"]
        return found

    seen = eventually(counts, lambda found: found["failed"] == len(BROKEN), 15, "the counts")
    assert (seen["desired"], seen["resident"]) == (len(BROKEN) + 1, 1)
    assert condition(broken.read("mdep", "tiny"), "Available")["status"] == "True"


def test_a_new_pod_comes_up_among_broken_adapters(broken: World) -> None:
    """Bytes that are wrong keep no pod unready, and a source that is not there does so for seconds only."""
    (old,) = broken.pods("tiny")
    broken.kubectl("delete", "pod", old["metadata"]["name"], "--wait=false")
    eventually(lambda: ready_pods(broken) - {old["metadata"]["name"]}, bool, 60, "a new pod Ready")
    assert broken.ask("good").status == 200


def ready_pods(world: World) -> set[str]:
    """Names of the model's Ready pods."""
    return {pod["metadata"]["name"] for pod in world.pods("tiny") if condition(pod, "Ready")["status"] == "True"}
