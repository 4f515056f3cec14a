"""Which pods may answer, and when waiting is no use."""

from dataclasses import replace

import pytest

from motet_api.identity import AdapterId
from motet_gateway.fleet import PodView
from tests.gateway.factories import TINY, fleet, pod, view

V1 = AdapterId("churn@v1")


@pytest.mark.parametrize(
    ("ready", "said", "serves_adapter", "serves_base"),
    [
        (True, view("churn@v1"), True, True),
        (True, view("churn@v2"), False, True),
        (True, view(loading=["churn@v1"]), False, True),
        (True, view("churn@v1", draining=True), False, False),
        (True, view("churn@v1", base_loaded=False), False, False),
        (True, view("churn@v1", fresh=False), True, True),
        (True, None, False, False),
        (False, view("churn@v1"), False, False),
    ],
)
def test_serving(ready: bool, said: PodView | None, serves_adapter: bool, serves_base: bool) -> None:
    state = fleet({pod(ready=ready): said})
    assert bool(state.serving(TINY, V1)) is serves_adapter
    assert bool(state.serving(TINY, None)) is serves_base


def test_a_silent_pod_serves_only_where_no_other_does() -> None:
    state = fleet({pod("silent"): view("churn@v1", "churn@v2", fresh=False), pod("b"): view("churn@v1")})
    assert [found.key.name for found, _ in state.serving(TINY, V1)] == ["b"]
    assert [found.key.name for found, _ in state.serving(TINY, AdapterId("churn@v2"))] == ["silent"]


def test_pods_are_asked_by_how_soon_they_can_answer() -> None:
    pods = {
        pod("holds"): view("churn@v1"),
        pod("loads"): view(warming=["churn@v1"]),
        pod("would"): view(standby=["churn@v1"]),
    }
    order = []
    while pods:
        ((first, _),) = fleet(pods).serving(TINY, V1)
        order.append(first.key.name)
        del pods[first]
    assert order == ["holds", "loads", "would"]
    silent = fleet({pod("holds"): view("churn@v1", fresh=False), pod("would"): view(standby=["churn@v1"])})
    assert [found.key.name for found, _ in silent.serving(TINY, V1)] == ["would"]
    failing = fleet({pod("holds"): view("churn@v1", fresh=False), pod("failed"): view(failing=["churn@v1"])})
    assert [found.key.name for found, _ in failing.serving(TINY, V1)] == ["holds"]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({pod(): view("churn@v1")}, None),
        ({pod(ready=False): view("churn@v1")}, None),
        ({pod(): view(loading=["churn@v1"])}, None),
        ({pod("a"): view(), pod("b"): None}, None),
        ({pod("a"): view(), pod("b", ready=False): view(desired_known=False)}, None),
        ({pod(): view(standby=["churn@v1"])}, None),
        ({}, None),
        ({pod(): view("churn@v1", draining=True)}, None),
        ({pod(): view()}, "not on any pod of default/tiny"),
        ({pod(): replace(view(), behind=True)}, None),
        ({pod(): replace(view(failed={"churn@v1": "SourceNotFound"}), behind=True)}, None),
        ({pod(): view(failed={"churn@v1": "CorruptWeights: cut off"})}, "CorruptWeights: cut off"),
        ({pod("a"): view(failed={"churn@v1": "RankTooLarge"}), pod("b"): view(loading=["churn@v1"])}, None),
    ],
)
def test_hopeless(said: dict, message: str | None) -> None:  # type: ignore[type-arg]
    verdict = fleet(said).hopeless(TINY, V1)
    assert (verdict is None) is (message is None)
    assert verdict is None or message in verdict.message  # type: ignore[operator]
    assert fleet(said).hopeless(TINY, None) is None
