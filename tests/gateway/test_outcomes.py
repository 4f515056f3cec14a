"""What is counted of a version, and for how long it is kept."""

from motet_api.loraadapter import TrafficTarget
from motet_api.wire import VersionOutcome
from motet_gateway.fleet import Fleet
from motet_gateway.outcomes import Outcomes
from motet_gateway.resolve import Route
from tests.gateway.factories import adapter, model, table

CHURN = adapter(versions=("v1", "v2"), traffic={"v1": 3, "gone": 1})
V1, V2 = Route(model(), CHURN, "v1"), Route(model(), CHURN, "v2")


class Counting:
    def __init__(self) -> None:
        self.now = 1000.0
        self.outcomes = Outcomes(lambda: self.now)

    def request(self, route: Route, failed: bool | None = False, seconds: float = 0.1) -> None:
        with self.outcomes.visit(route) as visit:
            self.now += seconds
            if failed is not None:
                visit.failed() if failed else visit.answered()

    def version(self, name: str, seconds: float = 60, known: bool = True) -> VersionOutcome:
        report = self.outcomes.report(CHURN.key, CHURN if known else None, seconds)
        (found,) = [each for each in report.versions if each.version == name]
        return found


def test_only_verdicts_are_counted() -> None:
    counting = Counting()
    counting.request(V1, failed=False)
    counting.request(V1, failed=True)
    counting.request(V1, failed=None)
    counting.request(Route(model()), failed=True)
    found = counting.version("v1")
    assert (found.requests, found.errors, sum(found.latency), found.in_flight) == (2, 1, 2, 0)
    assert counting.version("v2") == VersionOutcome(version="v2", latency=[0] * len(found.latency))


def test_a_request_is_in_flight_with_the_version_that_is_to_answer() -> None:
    counting = Counting()
    with counting.outcomes.visit(V1) as visit:
        assert counting.version("v1").in_flight == 1
        visit.move(V2)
        assert (counting.version("v1").in_flight, counting.version("v2").in_flight) == (0, 1)
        visit.answered()
    assert (counting.version("v1").requests, counting.version("v2").requests) == (0, 1)
    assert counting.version("v2").in_flight == 0


def test_the_split_that_is_followed() -> None:
    counting = Counting()
    report = counting.outcomes.report(CHURN.key, CHURN, 60)
    assert report.following == [TrafficTarget(version="v1", weight=3)], "of versions that are served"
    unknown = counting.outcomes.report(CHURN.key, None, 60)
    assert (unknown.following, unknown.versions) == (None, [])


def test_what_is_gone_from_the_table_is_forgotten_except_what_is_in_flight() -> None:
    counting = Counting()
    counting.request(V1)
    counting.request(V2)
    with counting.outcomes.visit(V1):
        counting.outcomes.prune(table([model()], [adapter(versions=("v2",))]), Fleet())
        assert (counting.version("v1").requests, counting.version("v1").in_flight) == (0, 1)
        assert counting.version("v2").requests == 1
        counting.outcomes.prune(table(), Fleet())
        assert [each.version for each in counting.outcomes.report(CHURN.key, None, 60).versions] == ["v1"]
    assert counting.outcomes.report(CHURN.key, None, 60).versions == []


def test_versions_without_requests_take_no_memory() -> None:
    counting = Counting()
    counting.request(V1)
    counting.now += 612_000
    counting.request(V2)
    assert {key: list(found) for key, found in counting.outcomes._windows.items()} == {CHURN.key: ["v2"]}


def test_comparisons_are_those_of_the_copy() -> None:
    counting = Counting()
    counting.outcomes.compared(V2, agreed=True, drift=0.5)
    found = counting.version("v2")
    assert (found.compared, found.agreed, found.scored, found.drift_sum, found.requests) == (1, 1, 1, 0.5, 0)
