"""A roll goes on only with what is served: what a pod of a new template must not fail at."""

import pytest

from motet_api.identity import AdapterId
from motet_api.loraadapter import Residency
from motet_api.reasons import AdapterReason
from motet_api.wire import AdaptersReport, DesiredAdapter
from motet_operator.adapters.residency import in_wanted_state
from motet_operator.models.obstacles import obstacle
from motet_operator.models.rolling import rolled
from motet_operator.snapshot import PodState
from tests.operator.factories import holds, state

OLD = state(holds("a@v1", "b@v1"), name="old", template="one")


def wanted(*names: str, residency: Residency = Residency.REQUIRED) -> tuple[DesiredAdapter, ...]:
    return tuple(DesiredAdapter(id=AdapterId(name), uri="pvc://adapters/x", residency=residency) for name in names)


def new(report: AdaptersReport | None = None, *, ready: bool = False, template: str = "two") -> PodState:
    return state(report or holds(known=False), name="new", ready=ready, template=template)


def proven(pod: PodState, *others: PodState) -> set[str]:
    document = wanted("a@v1", "b@v1", "c@v1")
    told = rolled([*others, pod], {one.pod.name: document for one in (*others, pod)})
    return {entry.id for entry in told[pod.pod.name] if entry.proven}


def test_what_the_pods_before_serve_is_proven() -> None:
    assert proven(new(), OLD) == {"a@v1", "b@v1"}


@pytest.mark.parametrize(
    ("pod", "others"),
    [
        (new(ready=True), [OLD]),
        (new(template="one"), [OLD]),
        (new(), [state(holds("a@v1"), name="old", ready=False, template="one")]),
        (new(), [state(None, name="old", template="one")]),
        (new(), [state(holds(("a@v1", AdapterReason.CORRUPT_WEIGHTS)), name="old", template="one")]),
        (new(), []),
    ],
    ids=["ready already", "same template", "old is not ready", "old is silent", "old failed too", "no other pod"],
)
def test_nothing_else_keeps_a_pod_from_being_ready(pod: PodState, others: list[PodState]) -> None:
    assert proven(pod, *others) == set()


def test_a_pod_without_room_for_what_is_served_is_told_nothing() -> None:
    placed = {"old": wanted("a@v1"), "new": wanted("b@v1")}
    assert set(rolled([OLD, new()], placed)) == {"old"}
    preferred = {"old": wanted("a@v1", residency=Residency.PREFERRED), "new": wanted("b@v1")}
    assert set(rolled([OLD, new()], preferred)) == {"old", "new"}
    leaving = {"old": wanted("b@v1"), "new": wanted("b@v1")}
    assert set(rolled([OLD, new()], leaving)) == {"old", "new"}, "what the old pod is about to unload is not missed"


def test_a_pod_is_told_anew_when_nobody_else_serves_it_any_more() -> None:
    document = rolled([OLD, new()], {"old": wanted("a@v1"), "new": wanted("a@v1")})["new"]
    pod = new(holds(("a@v1", AdapterReason.RANK_TOO_LARGE), proven=True, residency=Residency.REQUIRED))
    assert in_wanted_state(pod, document)
    assert not in_wanted_state(pod, wanted("a@v1"))
    assert "cannot serve a@v1" in obstacle(pod)
    assert "RankTooLarge" in obstacle(pod)
