"""Whatever is killed or deleted comes back, and nobody is answered by the base in the meantime."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.asking import Load
from tests.e2e.objects import Manifest, adapter, model_deployment, source
from tests.e2e.readiness import is_ready, never_ready_too_early, restarts
from tests.e2e.world import World
from tests.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ADAPTERS = {"one": "voice-1", "two": "voice-2"}


@pytest.fixture(scope="module")
def expected(world: World) -> dict[str, str]:
    """What each adapter answers when all is well; the base answers something else."""
    world.apply(model_deployment(world.namespace, "tiny"))
    world.apply(*(adapter(world.namespace, name, "tiny", {"v1": source(path)}) for name, path in ADAPTERS.items()))
    world.wait_ready("mdep/tiny", *(f"lora/{name}" for name in ADAPTERS))
    texts = {f"{world.namespace}/{name}": world.ask(name).text for name in ADAPTERS}
    assert len({world.ask("tiny").text, *texts.values()}) == 3
    return texts


@contextmanager
def watched(world: World, expected: dict[str, str]) -> Iterator[Load]:
    """Load and a look at the pods, while the block runs; afterwards no answer may be wrong and no pod Ready too early.

    Requests may fail while the only pod is down; a wrong answer is what must not happen.
    """
    with never_ready_too_early(world, ADAPTERS), Load(world.url, list(expected)) as load:
        yield load
    answered = [answer for answer in load.answers if answer.status == 200]
    assert answered
    assert [answer for answer in answered if answer.text != expected[answer.model] or answer.version != "v1"] == []


def ready_pods(world: World) -> list[Manifest]:
    """The model's Ready pods."""
    return [pod for pod in world.pods("tiny") if is_ready(pod)]


def answers_again(world: World, expected: dict[str, str]) -> None:
    """Wait until each adapter is served."""
    for model in expected:
        name = model.rpartition("/")[2]
        eventually(lambda name=name: world.ask(name).status, (200).__eq__, 60, f"{name} served again")


def test_the_runtime_is_killed(world: World, expected: dict[str, str]) -> None:
    (pod,) = world.pods("tiny")
    with watched(world, expected):
        world.kill_container(pod)
        eventually(lambda: [restarts(item) for item in world.pods("tiny")], [restarts(pod) + 1].__eq__, 30, "a restart")
        eventually(lambda: len(ready_pods(world)), (1).__eq__, 60, "the pod Ready again")
        answers_again(world, expected)


def test_the_operator_is_killed_in_the_middle_of_a_rollout(world: World, expected: dict[str, str]) -> None:
    (old,) = world.pods("tiny")
    with watched(world, expected) as load:
        template = {"env": [{"name": "ROLLOUT", "value": "second"}]}
        world.kubectl("patch", "mdep", "tiny", "--type=merge", "-p", json.dumps({"spec": {"template": template}}))
        eventually(lambda: len(world.pods("tiny")), (2).__le__, 30, "the rollout begun")
        operator = world.system_pod("operator")
        world.kill_container(operator)
        eventually(
            lambda: [pod["metadata"]["name"] for pod in ready_pods(world)],
            lambda names: len(names) == 1 and names != [old["metadata"]["name"]],
            90,
            "only the new pod",
        )
        world.wait_ready("mdep/tiny")
        answers_again(world, expected)
    assert load.failed == [], "a rollout with the new pod first must not fail a request"


def test_the_deployment_is_deleted_by_hand(world: World, expected: dict[str, str]) -> None:
    with watched(world, expected):
        before = world.read("deployment", "tiny")["metadata"]["uid"]
        world.kubectl("delete", "deployment", "tiny", "--wait=false")

        def uid() -> str:
            found = world.kubectl("get", "deployment", "tiny", "-o", "jsonpath={.metadata.uid}", check=False)
            return found if "NotFound" not in found else ""

        eventually(uid, lambda found: found not in {"", before}, 30, "a new Deployment")
        world.wait_ready("mdep/tiny")
        answers_again(world, expected)
