"""A new version takes over from the old one under load: no request fails, and every answer is what it says it is."""

import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from motet_api.reasons import AdapterReason, Reason
from tests.e2e.asking import Answer, Load
from tests.e2e.looking import Looks, look
from tests.e2e.objects import Manifest, adapter, source
from tests.e2e.truth import Truth, references
from tests.e2e.world import World, condition
from tests.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

RATE = 12
USERS = 24
LONG = 600
"""Tokens of a request that is still running when its version has left spec."""


@pytest.fixture(scope="module")
def texts(world: World) -> dict[str, str]:
    """Two pods; what each set of weights answers."""
    return references(world, pods=2)


def steady(world: World, name: str, **options: Any) -> Load:
    """Requests to one adapter at a constant rate."""
    return Load(world.url, [f"{world.namespace}/{name}"], threads=6, rate=RATE, **options)


def apply(
    world: World, name: str, versions: dict[str, str], traffic: dict[str, int] | None = None, **more: Any
) -> None:
    """Apply the adapter with versions by folder."""
    sources = {version: source(folder) for version, folder in versions.items()}
    world.apply(adapter(world.namespace, name, "tiny", sources, **more))


def served(world: World, name: str) -> None:
    """Wait until the adapter is ready, and the gateway has heard of it."""
    world.wait_ready(f"lora/{name}")
    world.served(name)


def status(world: World, name: str) -> Manifest:
    """The adapter's status."""
    found: Manifest = world.read("lora", name)["status"]
    return found


def split(world: World, name: str) -> dict[str, int]:
    """The split in effect."""
    return {target["version"]: target["weight"] for target in status(world, name).get("traffic", [])}


def only(world: World, name: str, version: str) -> None:
    """Wait until nothing but one version is left of an adapter: in status, and on every pod."""

    def left() -> tuple[list[str], list[set[str]]]:
        entries = [entry["name"] for entry in status(world, name)["versions"]]
        held = [{one for one in seen.held if one.startswith(f"{name}@")} for seen in look(world, "tiny")]
        return entries, held

    wanted = ([version], [{f"{name}@{version}"}] * 2)
    eventually(left, wanted.__eq__, 45, f"nothing but {version} left")
    world.wait_ready(f"lora/{name}", seconds=10)


def more_answers(load: Load, count: int = 15) -> None:
    """Let the load go on for a while."""
    until = len(load.answers) + count
    eventually(lambda: len(load.answers), until.__le__, 30, "more answers")


def first_seen(answers: Iterable[Answer], version: str) -> float:
    """When the first answer of a version was there."""
    return min(answer.ended for answer in answers if answer.version == version)


def rollout(weights: Iterable[int], bake: int, **more: Any) -> Manifest:
    """spec.rollout."""
    return {"steps": [{"weight": weight, "bakeSeconds": bake} for weight in weights], **more}


def test_v8_replaces_v7_by_one_apply(world: World, texts: dict[str, str]) -> None:
    """v7 leaves spec in the same edit, while requests to it by name are running that take seconds."""
    apply(world, "swap", {"v7": "voice-1"})
    served(world, "swap")
    long_ago = world.ask("swap@v7", tokens=LONG)
    late: list[Answer] = []
    runner = threading.Thread(target=lambda: late.append(world.ask("swap@v7", tokens=LONG)))
    with Looks(world) as looks, steady(world, "swap") as load:
        more_answers(load)
        runner.start()
        time.sleep(0.1)
        apply(world, "swap", {"v8": "voice-2"})
        only(world, "swap", "v8")
        runner.join()
        more_answers(load)
    assert load.failed == []
    assert Truth({"v7": texts["voice-1"], "v8": texts["voice-2"]}).wrong(load.answers) == []
    assert {answer.version for answer in load.answers} == {"v7", "v8"}
    assert looks.without("swap@v8", first_seen(load.answers, "v8")) == []
    assert (late[0].status, late[0].version, late[0].text) == (200, "v7", long_ago.text)
    during = [seen for seen in looks.seen if seen.pod == late[0].pod and late[0].at < seen.ended < late[0].ended]
    assert during
    assert [seen for seen in during if "swap@v7" not in seen.held] == []
    assert world.ask("swap@v7").status == 404


def test_no_pod_is_asked_for_a_version_before_all_have_it(world: World, texts: dict[str, str]) -> None:
    """One pod has v8 and the other cannot get it: v7 serves on; when it can, v8 takes over."""
    apply(world, "late", {"v7": "voice-1"})
    served(world, "late")
    first, second = world.pods("tiny")
    with Looks(world) as looks, steady(world, "late") as load:
        put_into(world, first, "voice-2", "late")
        world.apply(adapter(world.namespace, "late", "tiny", {"v8": {"uri": "file:///tmp/late"}}))

        def on_first() -> bool:
            return any(seen.pod == first["metadata"]["name"] and seen.resident("late@v8") for seen in looks.seen)

        eventually(on_first, bool, 30, "v8 on the pod that can have it")
        more_answers(load, 30)
        assert {answer.version for answer in load.answers} == {"v7"}
        (v8_status,) = [entry for entry in status(world, "late")["versions"] if entry["name"] == "v8"]
        resident = condition(v8_status, "Resident")
        assert (resident["status"], resident["reason"]) == ("False", AdapterReason.SOURCE_NOT_FOUND)
        assert second["metadata"]["name"] in resident["message"]
        put_into(world, second, "voice-2", "late")
        only(world, "late", "v8")
        more_answers(load)
    assert load.failed == []
    assert Truth({"v7": texts["voice-1"], "v8": texts["voice-2"]}).wrong(load.answers) == []
    assert looks.without("late@v8", first_seen(load.answers, "v8")) == []


def put_into(world: World, pod: Manifest, folder: str, name: str) -> None:
    """Copy an adapter into one pod's /tmp, past its back."""
    root = Path(f"/proc/{world.processes(pod)[0]}/root")
    partial = shutil.copytree(world.material / folder, root / "tmp" / f".{name}")
    partial.rename(root / "tmp" / name)


def test_steps_take_users_one_way(world: World, texts: dict[str, str]) -> None:
    apply(world, "steps", {"v7": "voice-1"})
    served(world, "steps")
    seen: list[tuple[str, str]] = []
    with Looks(world) as looks, steady(world, "steps", users=USERS) as load:
        more_answers(load)
        apply(world, "steps", {"v8": "voice-2"}, rollout=rollout((10, 50, 100), bake=3))

        def done() -> bool:
            item = world.read("lora", "steps")
            rolled_out = condition(item, "RolledOut")
            said = item["status"]["summary"]["rollout"], rolled_out["reason"]
            if said not in seen:
                seen.append(said)
            current = rolled_out["observedGeneration"] == item["metadata"]["generation"]
            return bool(current and rolled_out["status"] == "True")

        eventually(done, bool, 60, "rolled out")
        only(world, "steps", "v8")
        more_answers(load)
    assert load.failed == []
    assert Truth({"v7": texts["voice-1"], "v8": texts["voice-2"]}).wrong(load.answers) == []
    assert looks.without("steps@v8", first_seen(load.answers, "v8")) == []
    baking = [summary for summary, reason in seen if reason == Reason.BAKING]
    assert baking == ["step 1/3 10%", "step 2/3 50%", "step 3/3 100%"]
    assert back_and_forth(load.answers) == {}


def back_and_forth(answers: Iterable[Answer]) -> dict[str, list[str]]:
    """Users who were answered by v7 after v8 had answered them."""
    history: dict[str, list[str]] = defaultdict(list)
    for answer in sorted(answers, key=lambda answer: answer.at):
        history[answer.user].append(answer.version)
    return {user: versions for user, versions in history.items() if versions != sorted(versions)}


def test_a_rollout_is_held_and_promoted(world: World, texts: dict[str, str]) -> None:
    apply(world, "held", {"v7": "voice-1"})
    served(world, "held")
    with steady(world, "held", users=USERS) as load:
        apply(world, "held", {"v8": "voice-2"}, rollout=rollout((50, 100), bake=1, action="Pause"))
        eventually(
            lambda: condition(status(world, "held"), "RolledOut")["reason"], Reason.PAUSED.__eq__, 30, "held at step 1"
        )
        more_answers(load, 4 * RATE)
        now = status(world, "held")
        assert (now["summary"]["rollout"], condition(now, "RolledOut")["reason"]) == ("step 1/2 50%", Reason.PAUSED)
        assert {answer.version for answer in load.answers[-2 * USERS :]} == {"v7", "v8"}
        apply(world, "held", {"v8": "voice-2"}, rollout=rollout((50, 100), bake=1, action="Promote"))
        only(world, "held", "v8")
        more_answers(load)
    assert load.failed == []
    assert Truth({"v7": texts["voice-1"], "v8": texts["voice-2"]}).wrong(load.answers) == []
    assert back_and_forth(load.answers) == {}


BAKE = 10


def taken_back(world: World, name: str) -> Manifest:
    """Wait for the rollback; returns the condition. It must come within the step's time, and with an Event."""

    def rolled_out() -> Manifest:
        return condition(status(world, name), "RolledOut")

    found = eventually(rolled_out, lambda entry: entry["reason"] == Reason.ROLLED_BACK, 60, "rolled back")
    assert found["status"] == "False"
    assert condition(status(world, name), "Ready")["status"] == "False"

    def warnings() -> list[str]:
        events = world.get("/apis/events.k8s.io/v1/namespaces/{}/events")["items"]
        mine = [event for event in events if event["regarding"]["name"] == name and event["type"] == "Warning"]
        return [event["reason"] for event in mine]

    eventually(warnings, lambda reasons: Reason.ROLLED_BACK in reasons, 10, "a Warning")
    started = datetime.fromisoformat(status(world, name)["rollout"]["stepStarted"])
    assert (datetime.fromisoformat(found["lastTransitionTime"]) - started).total_seconds() <= BAKE
    return found


def test_a_version_that_errors_is_taken_back(world: World, texts: dict[str, str]) -> None:
    """Its weights pass every check, and no token can be chosen by them."""
    apply(world, "errs", {"v7": "voice-1"})
    served(world, "errs")
    with steady(world, "errs", users=USERS) as load:
        limits = {"errorPercent": 5, "minRequests": 5}
        apply(world, "errs", {"v8": "overflow"}, rollout=rollout((25, 100), bake=BAKE, limits=limits))
        found = taken_back(world, "errs")
        assert "v8" in found["message"]
        assert "errorPercent is 5" in found["message"]
        eventually(lambda: split(world, "errs"), {"v7": 1}.__eq__, 10, "v7 alone")
        # The gateway learns of it by its own watch.
        time.sleep(1)
        after = time.monotonic()
        more_answers(load, 3 * RATE)
    assert {answer.version for answer in load.since(after)} == {"v7"}
    assert [answer for answer in load.since(after) if answer.status != 200] == []
    assert {answer.version for answer in load.failed} == {"v8"}
    assert Truth({"v7": texts["voice-1"]}).wrong(load.answers) == []


def test_a_version_that_answers_otherwise_is_taken_back_unseen(world: World, texts: dict[str, str]) -> None:
    """It sees copies only: nobody gets its answers."""
    apply(world, "drifts", {"v7": "voice-1"})
    served(world, "drifts")
    limits = {"agreementPercent": 90, "minRequests": 5}
    steps = rollout((0, 100), bake=BAKE, limits=limits, mirrorPercent=100)
    with steady(world, "drifts") as load:
        apply(world, "drifts", {"v8": "voice-3"}, rollout=steps)
        found = taken_back(world, "drifts")
        assert "agreementPercent is 90" in found["message"]
        more_answers(load)
    assert load.failed == []
    assert {(answer.version, answer.text) for answer in load.answers} == {("v7", texts["voice-1"])}


def test_a_version_that_answers_the_same_passes_unseen_first(world: World, texts: dict[str, str]) -> None:
    apply(world, "same", {"v7": "voice-1"})
    served(world, "same")
    limits = {"agreementPercent": 90, "errorPercent": 5, "minRequests": 5}
    steps = rollout((0, 100), bake=2, limits=limits, mirrorPercent=100)
    with steady(world, "same") as load:
        apply(world, "same", {"v8": "voice-1"}, rollout=steps)
        only(world, "same", "v8")
        more_answers(load)
    assert load.failed == []
    assert Truth({"v7": texts["voice-1"], "v8": texts["voice-1"]}).wrong(load.answers) == []
    assert {answer.version for answer in load.answers} == {"v7", "v8"}
