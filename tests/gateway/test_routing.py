"""What pods say is believed only of the weights that a version now has."""

import dataclasses

import pytest

from motet_api.identity import AdapterId
from motet_api.loraadapter import Residency
from motet_gateway.routing import Routing
from motet_gateway.table import Source
from motet_gateway.table_builder import TableBuilder
from tests.gateway.factories import TINY, adapter, model, pod, table, view

V1 = AdapterId("churn@v1")
DIGEST, OTHER_DIGEST = "sha256:" + "0" * 64, "sha256:" + "1" * 64
OLD, NEW = Source("pvc://adapters/old"), Source("pvc://adapters/new", DIGEST)


def routing(wanted: Source | None, held: Source) -> Routing:
    """One pod that holds churn@v1 from `held`, and a table in which it comes from `wanted`."""
    churn = adapter() if wanted is None else dataclasses.replace(adapter(), sources={"v1": wanted})
    found = Routing()
    found.set_table(table(adapters=[churn], pods=[pod()]))
    found.set_view(pod().key, view(V1, sources={V1: held}))
    return found


@pytest.mark.parametrize(
    ("wanted", "held", "serves"),
    [
        (OLD, OLD, True),
        (OLD, Source(OLD.uri, DIGEST), True),
        (NEW, OLD, False),
        (NEW, Source(NEW.uri), False),
        (NEW, Source(NEW.uri, OTHER_DIGEST), False),
        (None, OLD, True),
    ],
    ids=["the same", "any digest", "another source", "no digest found", "another digest", "a table that does not say"],
)
def test_a_version_is_served_only_from_its_own_source(wanted: Source | None, held: Source, serves: bool) -> None:
    fleet = routing(wanted, held).fleet
    assert bool(fleet.serving(TINY, V1)) is serves
    assert fleet.hopeless(TINY, V1) is None, "the operator is about to tell the pod"


def test_the_base_is_served_all_the_same() -> None:
    assert routing(NEW, OLD).fleet.serving(TINY, None)


def test_a_version_is_believed_again_once_the_pod_was_told() -> None:
    found = routing(NEW, OLD)
    found.set_view(pod().key, view(V1, sources={V1: NEW}))
    assert found.fleet.serving(TINY, V1)


def test_a_new_table_is_held_against_what_was_said_before() -> None:
    found = routing(OLD, OLD)
    found.set_table(table(adapters=[dataclasses.replace(adapter(), sources={"v1": NEW})], pods=[pod()]))
    assert not found.fleet.serving(TINY, V1)


def test_a_pod_that_loads_for_a_request_holds_others() -> None:
    for residency, warming in ((Residency.REQUIRED, False), (Residency.PREFERRED, False), (Residency.ON_DEMAND, True)):
        found = Routing()
        churn = dataclasses.replace(adapter(), sources={"v1": NEW}, residency=residency)
        found.set_table(table(adapters=[churn], pods=[pod()]))
        found.set_view(pod().key, view(loading=[V1], sources={V1: NEW}))
        assert bool(found.fleet.serving(TINY, V1)) is warming
        found.set_view(pod().key, view(loading=[V1], sources={V1: OLD}))
        assert not found.fleet.serving(TINY, V1), "it loads other weights"
        found.set_view(pod().key, view(failed={V1: "FetchFailed"}, sources={V1: NEW}))
        assert bool(found.fleet.tiers(TINY, V1).failing) is warming
        assert (found.fleet.hopeless(TINY, V1) is None) is warming


def test_an_agent_loads_nothing_for_a_request() -> None:
    found = Routing()
    churn = dataclasses.replace(adapter(), sources={"v1": NEW}, residency=Residency.ON_DEMAND)
    found.set_table(table(adapters=[churn], pods=[dataclasses.replace(pod(), reports_at="127.0.0.1:2")]))
    found.set_view(pod().key, view(loading=[V1], sources={V1: NEW}))
    assert not found.fleet.serving(TINY, V1), "the request waits here until it is loaded"
    assert found.fleet.hopeless(TINY, V1) is None


def test_a_version_on_standby_is_believed_of_its_own_source_only() -> None:
    found = routing(NEW, NEW)
    found.set_view(pod().key, view(standby=[V1], sources={V1: NEW}))
    assert found.fleet.tiers(TINY, V1).standby
    found.set_view(pod().key, view(standby=[V1], sources={V1: OLD}))
    assert not found.fleet.serving(TINY, V1)


def test_views_of_other_models_are_not_held_against_the_table_anew() -> None:
    found = routing(NEW, OLD)
    before = found.fleet.views[pod().key]
    others = [model(), model("other")]
    churn = dataclasses.replace(adapter(), sources={"v1": NEW})
    builder = TableBuilder()
    for each in others:
        builder.put_model(each)
    builder.put_adapter(churn)
    builder.set_pods([pod()])
    found.set_table(builder.table())
    first = found.fleet.views[pod().key]
    builder.put_adapter(adapter("topic", of="other"))
    found.set_table(builder.table())
    assert found.fleet.views[pod().key] is first
    assert first == before
