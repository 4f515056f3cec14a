"""A version comes and goes while the pod is up and untouched."""

import pytest

from motet_api.errors import ErrorCode
from tests.e2e.objects import Manifest, adapter, model_deployment, source
from tests.e2e.world import World
from tests.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SERVED_WITHIN = 5.0


@pytest.fixture(scope="module")
def pod(world: World) -> Manifest:
    """The one pod of a model with one adapter in one version."""
    world.apply(model_deployment(world.namespace, "tiny"))
    world.apply(adapter(world.namespace, "voice", "tiny", {"v1": source("voice-1")}))
    world.wait_ready("mdep/tiny", "lora/voice")
    (found,) = world.pods("tiny")
    return found


def untouched(world: World, pod: Manifest) -> bool:
    """Whether the pod is the same and has not restarted."""
    (now,) = world.pods("tiny")
    return bool(
        now["metadata"]["uid"] == pod["metadata"]["uid"]
        and now["status"]["containerStatuses"][0]["restartCount"] == 0
        and now["status"]["containerStatuses"][0]["ready"]
    )


def test_a_version_comes_and_goes(world: World, pod: Manifest) -> None:
    base, first = world.ask("tiny"), world.ask("voice")
    assert (base.status, first.status, first.version) == (200, 200, "v1")
    assert base.text != first.text
    assert world.ask("voice@v2").code == ErrorCode.VERSION_NOT_FOUND

    both = {"v1": source("voice-1"), "v2": source("voice-2")}
    world.apply(adapter(world.namespace, "voice", "tiny", both, {"v1": 1, "v2": 1}))
    second = eventually(
        lambda: world.ask("voice@v2"), lambda answer: answer.status == 200, SERVED_WITHIN, "the new version served"
    )
    assert second.version == "v2"
    assert len({base.text, first.text, second.text}) == 3
    assert untouched(world, pod)

    def versions() -> set[str]:
        return {world.ask("voice", user=f"user-{index}", tokens=1).version for index in range(20)}

    eventually(versions, {"v1", "v2"}.__eq__, 10, "the split in effect")
    assert len({world.ask("voice", user="one", tokens=1).version for _ in range(5)}) == 1

    world.apply(adapter(world.namespace, "voice", "tiny", {"v1": source("voice-1")}, {"v1": 1}))
    gone = eventually(lambda: world.ask("voice@v2"), lambda answer: answer.status == 404, 10, "a 404")
    assert gone.code == ErrorCode.VERSION_NOT_FOUND
    assert "v1" in gone.message
    eventually(lambda: held(world, pod), {"voice@v1"}.__eq__, 15, "v2 unloaded")
    assert world.ask("voice").text == first.text
    assert untouched(world, pod)


def held(world: World, pod: Manifest) -> set[str]:
    """Ids of what the pod holds."""
    report = world.report(pod["metadata"]["name"])
    return {entry.id for entry in report.adapters} if report else set()


def test_a_name_that_nobody_has_is_an_error_by_name(world: World, pod: Manifest) -> None:
    answer = world.ask("voices")
    assert (answer.status, answer.code) == (404, ErrorCode.ADAPTER_NOT_FOUND)
    assert "voices" in answer.message


def test_a_name_made_anew_has_its_new_weights_at_once(world: World, pod: Manifest) -> None:
    """The same name and version with other weights, as after a mistake: no answer is of the old ones, cached or not."""
    first, second = (world.ask(f"voice@{version}").text for version in ("v1", "v1"))
    assert first == second
    world.kubectl("delete", "lora", "voice")
    world.apply(adapter(world.namespace, "voice", "tiny", {"v1": source("voice-3")}))
    answers = []

    def ready() -> bool:
        answers.append(world.ask("voice@v1"))
        return answers[-1].status == 200

    eventually(ready, bool, SERVED_WITHIN, "the new one served")
    answers.extend(world.ask("voice@v1") for _ in range(10))
    texts = {answer.text for answer in answers if answer.status == 200}
    assert len(texts) == 1
    assert first not in texts
    assert untouched(world, pod)
