"""Whatever is killed or deleted comes back, and nobody is answered by the base in the meantime."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from demo_lib.installation import NAMESPACE
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
        eventually(partial(status_of, world, name), (200).__eq__, 60, f"{name} served again")


def status_of(world: World, name: str) -> int:
    """What a request to an adapter is answered with."""
    return world.ask(name).status


def test_the_runtime_is_killed(world: World, expected: dict[str, str]) -> None:
    (pod,) = world.pods("tiny")
    with watched(world, expected):
        world.kill_container(pod)
        eventually(lambda: [restarts(item) for item in world.pods("tiny")], [restarts(pod) + 1].__eq__, 30, "a restart")
        eventually(lambda: len(ready_pods(world)), (1).__eq__, 60, "the pod Ready again")
        answers_again(world, expected)


def test_the_gateway_is_killed_while_no_operator_leads(world: World, expected: dict[str, str]) -> None:
    """It reads anew what there is, and serves, without anybody's help."""
    kubectl = world.installation.cluster.kubectl
    deployment = ("deployment/motet-operator", "-n", NAMESPACE)
    kubectl("scale", *deployment, "--replicas=0")
    try:
        eventually(lambda: operators(world), [].__eq__, 60, "no operator")
        with watched(world, expected) as load:
            eventually(lambda: served(load), bool, 30, "an answer before")
            pod = world.system_pod("gateway")
            world.kill_container(pod)
            eventually(lambda: restarts(world.system_pod("gateway")), (restarts(pod) + 1).__eq__, 30, "a restart")
            answers_again(world, expected)
            until = served(load) + 10
            eventually(lambda: served(load), until.__le__, 30, "answers afterwards")
    finally:
        kubectl("scale", *deployment, "--replicas=2")
        kubectl("rollout", "status", *deployment, "--timeout=60s")
    assert world.ask("nobody").status == 404


def served(load: Load) -> int:
    """How many requests have been answered well."""
    return len(load.answers) - len(load.failed)


def operators(world: World) -> list[str]:
    """The operator's pods."""
    selector = "labelSelector=app.kubernetes.io/component%3Doperator"
    return [pod["metadata"]["name"] for pod in world.get(f"/api/v1/namespaces/{NAMESPACE}/pods?{selector}")["items"]]


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
