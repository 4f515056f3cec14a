"""Whatever is killed, cut or edited in the middle of a rollout: it ends in the same state, and no request notices.

Every case rolls a new version of one adapter out under a constant rate of requests, does its damage at a moment of the
rollout, and must reach, within CONVERGED seconds, the state that an undisturbed rollout reaches.

A clock jump is not among them: the machine has one clock for all. The operator's and the rollout's clocks are set back
and forth in the unit tests of the Lease and of the rollout.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from motet_api.reasons import AdapterReason
from tests.e2e.asking import Load
from tests.e2e.faults import (
    connections_cut,
    delete_leader,
    delete_runtime,
    kill_leader,
    kill_runtime,
    quarrel,
    restart_api_server,
)
from tests.e2e.looking import look
from tests.e2e.objects import Manifest, adapter, source
from tests.e2e.truth import VOICES, Truth, references
from tests.e2e.world import ApiError, World, condition
from tests.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

RATE = 8
CONVERGED = 30
VOICE, BYSTANDER = "voice", "bystander"
State = dict[str, Any]


@dataclass
class Stage:
    """The adapter that is rolled out again and again, and what its versions answer."""

    world: World
    texts: dict[str, str]
    numbers: Iterator[int] = field(default_factory=itertools.count)
    truth: dict[str, str] = field(default_factory=dict)
    version: str = ""
    settled: State = field(default_factory=dict)

    def next(self, *more: Manifest) -> None:
        """Apply the adapter with a new version in place of the present one."""
        number = next(self.numbers)
        voice = VOICES[number % 2]
        self.version = f"v{number}"
        self.truth[self.version] = self.texts[voice]
        self.world.apply(adapter(self.world.namespace, VOICE, "tiny", {self.version: source(voice)}), *more)

    def state(self) -> State:
        """All that should be the same after every case, the version's own name and the pods' aside."""
        try:
            lora, bystander = (self.world.read("lora", name) for name in (VOICE, BYSTANDER))
            model = self.world.read("mdep", "tiny")
            pods = self.world.pods("tiny")
        except ApiError as error:
            return {"silent": str(error)}
        held = look(self.world, "tiny")
        current = lora["metadata"]["generation"] == lora["status"]["observedGeneration"]
        return {
            "current": current,
            "adapters": [told(lora, self.version), told(bystander)],
            "model": {entry["type"]: entry["status"] for entry in model["status"]["conditions"]},
            "counts": model["status"]["adapters"],
            "replicas": (model["spec"]["replicas"], model["status"]["replicas"], model["status"]["readyReplicas"]),
            "ready": [condition(pod, "Ready")["status"] for pod in pods],
            "held": [sorted(mine(seen.held, self.version)) for seen in held],
        }


def told(item: Manifest, version: str = "") -> State:
    """What a LoraAdapter's status says, without times and messages; the given version is called new."""
    status = item["status"]

    def called(name: str) -> str:
        return "new" if name == version else name

    def conditions(entries: list[Manifest]) -> dict[str, tuple[str, str]]:
        return {entry["type"]: (entry["status"], entry["reason"]) for entry in entries}

    return {
        "conditions": conditions(status["conditions"]),
        "traffic": [(called(target["version"]), target["weight"]) for target in status.get("traffic", [])],
        "versions": {
            called(entry["name"]): (entry["readyOn"], entry["pods"], conditions(entry["conditions"]))
            for entry in status["versions"]
        },
    }


def mine(held: Any, version: str) -> Iterator[tuple[str, AdapterReason]]:
    """What a pod holds of the two adapters that the cases are about."""
    for name, reason in held.items():
        if name.startswith((f"{VOICE}@", f"{BYSTANDER}@")):
            yield ("new" if name == f"{VOICE}@{version}" else name), reason


@pytest.fixture(scope="module")
def stage(world: World) -> Stage:
    """Two pods, an adapter nobody touches, and the state after a rollout that nothing disturbs."""
    found = Stage(world, references(world, pods=2))
    world.apply(adapter(world.namespace, BYSTANDER, "tiny", {"v1": source("voice-3")}))
    found.next()
    world.wait_ready(f"lora/{VOICE}", f"lora/{BYSTANDER}")
    with undisturbed(found):
        found.next()
        found.settled = eventually(
            found.state, partial(is_settled, found), CONVERGED, "a rollout that nothing disturbs"
        )
    return found


def is_settled(stage: Stage, state: State) -> bool:
    """Whether the rollout is over and everything says so."""
    return bool(
        "silent" not in state
        and state["current"]
        and [one["conditions"]["Ready"] for one in state["adapters"]] == [("True", "Ready")] * 2
        and [list(one["versions"]) for one in state["adapters"]] == [["new"], ["v1"]]
        and (state["model"]["Ready"], state["counts"]["summary"]) == ("True", f"{len(VOICES) + 2}/{len(VOICES) + 2}")
        and state["ready"] == ["True"] * 2
        and [len(held) for held in state["held"]] == [2, 2]
    )


@contextlib.contextmanager
def undisturbed(stage: Stage) -> Iterator[Load]:
    """Requests at a constant rate while the block runs; none may fail, or be answered by anybody but a version."""
    world = stage.world
    models = [f"{world.namespace}/{name}" for name in (VOICE, BYSTANDER)]
    with Load(world.url, models, threads=6, rate=RATE) as load:
        yield load
        until = len(load.answers) + RATE
        eventually(lambda: len(load.answers), until.__le__, 30, "answers afterwards")
    assert load.failed == []
    voice = [answer for answer in load.answers if answer.model == models[0]]
    others = [answer for answer in load.answers if answer.model == models[1]]
    assert Truth(stage.truth).wrong(voice) == []
    assert Truth({"v1": stage.texts["voice-3"]}).wrong(others) == []


def at_once(_: Stage) -> None:
    """Right after the apply."""


def when_one_pod_has_it(stage: Stage) -> None:
    """The first pod has loaded the new version."""
    wanted = f"{VOICE}@{stage.version}"
    eventually(lambda: any(seen.resident(wanted) for seen in look(stage.world, "tiny")), bool, CONVERGED, "on one pod")


def when_the_split_has_moved(stage: Stage) -> None:
    """The old version gets no requests any more, and is still held."""

    def traffic() -> list[str]:
        return [target["version"] for target in stage.world.read("lora", VOICE)["status"].get("traffic", [])]

    eventually(traffic, [stage.version].__eq__, CONVERGED, "the split moved")


Moment = Callable[[Stage], None]
Fault = Callable[[World], object]
CASES: dict[str, tuple[Fault, Moment]] = {
    "the leader is killed at once": (kill_leader, at_once),
    "the leader is killed while pods load": (kill_leader, when_one_pod_has_it),
    "the leader is killed while the old version drains": (kill_leader, when_the_split_has_moved),
    "the leader's pod is deleted": (delete_leader, when_one_pod_has_it),
    "a runtime is killed": (kill_runtime, at_once),
    "a runtime is killed while the old version drains": (kill_runtime, when_the_split_has_moved),
    "a runtime pod is deleted": (delete_runtime, at_once),
    "every watch is cut": (connections_cut, at_once),
    "the API server is killed": (restart_api_server, when_one_pod_has_it),
}


@pytest.mark.parametrize(("fault", "moment"), CASES.values(), ids=CASES)
def test_it_ends_in_the_same_state(stage: Stage, fault: Fault, moment: Moment) -> None:
    with undisturbed(stage):
        stage.next()
        moment(stage)
        fault(stage.world)
        converges(stage)


def converges(stage: Stage) -> None:
    """The state of an undisturbed rollout, in time."""

    def differs() -> State:
        now = stage.state()
        return {key: (value, now.get(key)) for key, value in stage.settled.items() if now.get(key) != value}

    eventually(differs, {}.__eq__, CONVERGED, "the state of an undisturbed rollout")


def test_others_edit_the_same_objects(stage: Stage) -> None:
    """A quarrel over labels, annotations and the Deployment's replicas; the rollout goes on meanwhile."""
    with undisturbed(stage):
        with quarrel(stage.world, VOICE, BYSTANDER):
            stage.next()
            when_the_split_has_moved(stage)
        converges(stage)


def test_a_bad_adapter_among_good_ones(stage: Stage) -> None:
    """One apply brings a good version and two adapters that cannot be loaded, one of them of too high a rank."""
    world = stage.world
    bad = {"cut-off": "truncated", "too-large": "rank-32"}
    reasons = {"cut-off": AdapterReason.CORRUPT_WEIGHTS, "too-large": AdapterReason.RANK_TOO_LARGE}
    with undisturbed(stage):
        stage.next(*(adapter(world.namespace, name, "tiny", {"v1": source(folder)}) for name, folder in bad.items()))
        for name, reason in reasons.items():
            eventually(partial(reason_of, world, name), reason.__eq__, CONVERGED, name)
        when_the_split_has_moved(stage)
        world.kubectl("delete", "lora", *bad)
        converges(stage)


def reason_of(world: World, name: str) -> str:
    """Why an adapter is not ready."""
    return str(condition(world.read("lora", name), "Ready")["reason"])
