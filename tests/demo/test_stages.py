"""The demo's timeline: the first sight of each stage counts, and what was not seen says so."""

from typing import Any

from demo_lib.burst import hpa_line, quantity
from demo_lib.console import table
from demo_lib.installation import merged
from demo_lib.stages import Stage, Timeline


def pod(name: str, running: bool = False, ready: bool = False) -> dict[str, Any]:
    status: dict[str, Any] = {"containerStatuses": [{"state": {"running": {}} if running else {"waiting": {}}}]}
    status["conditions"] = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {"metadata": {"name": name}, "status": status}


def demand(waiting: int, name: str = "m") -> dict[str, Any]:
    return {"models": [{"namespace": "demo", "name": name, "waiting": waiting, "running": 8}]}


def test_whole_timeline() -> None:
    timeline = Timeline(known_pods=frozenset({"old"}))
    timeline.see_demand(demand(0), "demo", "m", 9.0)
    timeline.see_demand(demand(4), "demo", "m", 10.0)
    timeline.see_demand(demand(9), "demo", "m", 11.0)
    timeline.see_metric(12, 8, 12.0)
    timeline.see_model({"spec": {"replicas": 2}}, 14.0)
    timeline.see_pod(pod("old", running=True, ready=True), 14.1)
    timeline.see_pod(pod("new"), 14.5)
    timeline.see_pod(pod("new", running=True), 16.0)
    timeline.see_token("old", 17.0)
    timeline.see_pod(pod("new", running=True, ready=True), 20.0)
    assert not timeline.complete
    timeline.see_token("new", 21.0)
    assert timeline.complete
    assert [(row[1], row[2]) for row in timeline.rows()] == [
        ("0.0", "0.0"),
        ("2.0", "2.0"),
        ("4.0", "2.0"),
        ("4.5", "0.5"),
        ("6.0", "1.5"),
        ("10.0", "4.0"),
        ("11.0", "1.0"),
    ]


def test_what_is_not_seen_says_so() -> None:
    timeline = Timeline(known_pods=frozenset({"old"}))
    assert {row[1] for row in timeline.rows()} == {"not seen"}
    timeline.see_demand(demand(3, name="another"), "demo", "m", 1.0)
    timeline.see_metric(8, 8, 1.0)
    timeline.see_model({"spec": {"replicas": 1}}, 1.0)
    timeline.see_token("old", 1.0)
    assert timeline.seen == {}


def test_a_second_new_pod_does_not_take_the_first_ones_place() -> None:
    timeline = Timeline(known_pods=frozenset())
    timeline.see_pod(pod("first"), 1.0)
    timeline.see_pod(pod("second", running=True), 2.0)
    assert (timeline.new_pod, Stage.STARTED in timeline.seen) == ("first", False)


def test_quantities() -> None:
    assert [quantity(text) for text in ("12", "12500m", "0")] == [12, 12.5, 0]


def test_hpa_line_before_and_after_the_first_metric() -> None:
    target = {"type": "Object", "object": {"target": {"type": "AverageValue", "averageValue": "8"}}}
    hpa: dict[str, Any] = {"metadata": {"name": "m"}, "spec": {"metrics": [target]}}
    assert hpa_line(hpa) == "hpa m: <unknown>/8 (avg), replicas 0 -> 0"
    current = {"type": "Object", "object": {"current": {"averageValue": "16"}}}
    hpa["status"] = {"currentMetrics": [current], "currentReplicas": 1, "desiredReplicas": 2}
    assert hpa_line(hpa) == "hpa m: 16/8 (avg), replicas 1 -> 2"


def test_values_are_merged_by_key() -> None:
    below = {"gateway": {"image": {"tag": "a", "repository": "r"}}, "operator": {}}
    assert merged(below, {"gateway": {"image": {"tag": "b"}, "replicas": 2}}) == {
        "gateway": {"image": {"tag": "b", "repository": "r"}, "replicas": 2},
        "operator": {},
    }


def test_table() -> None:
    assert table(("a", "long"), [("xyz", "1"), ("", "22")]) == "a    long\n---  ----\nxyz  1\n     22"
