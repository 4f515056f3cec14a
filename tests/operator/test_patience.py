"""Steps that are over within a moment are not written; whatever else a status says is, at once."""

from typing import Any

import pytest

from motet_api.loraadapter import LoraAdapterStatus
from motet_operator.passes.patience import LONGEST_SECONDS, STEP_SECONDS, Patience, is_step


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def condition(kind: str, status: str, reason: str, message: str = "") -> dict[str, Any]:
    time = "2026-11-24T10:00:00Z"
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": time}


def status(
    reason: str = "Progressing",
    message: str = "loading",
    version: tuple[str, str] = ("False", "Loading"),
    uri: str = "file:///adapters/voice",
    **more: Any,
) -> LoraAdapterStatus:
    ready = condition("Ready", "True" if reason == "Ready" else "False", reason, message)
    entry = {"name": "v1", "source": {"uri": uri}, "conditions": [condition("Resident", *version)]}
    return LoraAdapterStatus.model_validate({"versions": [entry], "conditions": [ready], **more})


READY = status("Ready", "resident", ("True", "Resident"))


@pytest.mark.parametrize("old", [None, status("NoPods", "no pod", ("Unknown", "NoPods"))])
@pytest.mark.parametrize("new", [status(), status("NoPods", "no pod of the model runs", ("Unknown", "NoPods"))])
def test_a_step(old: LoraAdapterStatus | None, new: LoraAdapterStatus) -> None:
    assert is_step(old, new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (None, READY),
        (READY, status()),
        (status(), status("CorruptWeights", "truncated", ("False", "CorruptWeights"))),
        (status(), status(version=("False", "CorruptWeights"))),
        (status(), status("PodUnreachable", "a pod does not answer", ("Unknown", "PodUnreachable"))),
        (None, status("ModelDeploymentNotFound", "there is none", ("Unknown", "ModelDeploymentNotFound"))),
        (None, status(uri="s3://adapters/voice")),
        (status(), status(traffic=[{"version": "v1", "weight": 1}])),
        (status(), status(rollout={"key": "k"})),
        (status(), status(mirror=[{"version": "v1", "percent": 5}])),
    ],
    ids=[
        "ready",
        "not-any-more",
        "failed",
        "version-failed",
        "silent",
        "orphan",
        "remote",
        "split",
        "rollout",
        "mirror",
    ],
)
def test_what_is_written_at_once(old: LoraAdapterStatus | None, new: LoraAdapterStatus) -> None:
    assert not is_step(old, new)
    assert not Patience(Clock()).holds_back("uid", old, new)


def test_a_step_is_written_once_it_has_lasted() -> None:
    clock = Clock()
    patience = Patience(clock)
    assert patience.holds_back("uid", None, status())
    clock.now += STEP_SECONDS / 2
    assert patience.holds_back("uid", None, status())
    clock.now += STEP_SECONDS / 2
    assert not patience.holds_back("uid", None, status())


def test_another_step_must_last_as_well_but_not_for_ever() -> None:
    clock = Clock()
    patience = Patience(clock)
    written_after = 0.0
    for number in range(100):
        if not patience.holds_back("uid", None, status(message=f"step {number}")):
            break
        clock.now += STEP_SECONDS / 2
        written_after += STEP_SECONDS / 2
    assert LONGEST_SECONDS <= written_after < LONGEST_SECONDS + STEP_SECONDS


def test_objects_do_not_wait_for_each_other() -> None:
    clock = Clock()
    patience = Patience(clock)
    assert patience.holds_back("one", None, status())
    clock.now += STEP_SECONDS
    assert patience.holds_back("other", None, status())
    assert not patience.holds_back("one", None, status())


def test_what_became_of_it_is_written_at_once() -> None:
    patience = Patience(Clock())
    assert patience.holds_back("uid", None, status())
    assert not patience.holds_back("uid", None, READY)
    assert patience.holds_back("uid", None, status()), "and nothing of the first time is remembered"


def test_what_is_deleted_while_it_is_held_back_is_forgotten() -> None:
    clock = Clock()
    patience = Patience(clock)
    for number in range(100):
        assert patience.holds_back(f"deleted-{number}", None, status())
    clock.now += 3 * LONGEST_SECONDS
    assert patience.holds_back("uid", None, status())
    assert patience.held == 1
