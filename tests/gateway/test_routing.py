"""What pods say is believed only of the weights that a version now has."""

import dataclasses

import pytest

from motet_api.identity import AdapterId
from motet_gateway.routing import Routing
from motet_gateway.table import Source
from tests.gateway.factories import TINY, adapter, pod, table, view

V1 = AdapterId("churn@v1")
OLD, NEW = Source("pvc://adapters/old"), Source("pvc://adapters/new", "sha256:" + "0" * 64)


def routing(wanted: Source | None, held: Source) -> Routing:
    """One pod that holds churn@v1 from `held`, and a table in which it comes from `wanted`."""
    churn = adapter() if wanted is None else dataclasses.replace(adapter(), sources={"v1": wanted})
    found = Routing()
    found.set_table(table(adapters=[churn], pods=[pod()]))
    found.set_view(pod().key, view(V1, sources={V1: held}))
    return found


@pytest.mark.parametrize(
    ("wanted", "held", "serves"),
    [(OLD, OLD, True), (NEW, OLD, False), (NEW, Source(NEW.uri), False), (None, OLD, True)],
    ids=["the same", "another source", "the same source with a digest now", "a table that does not say"],
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
