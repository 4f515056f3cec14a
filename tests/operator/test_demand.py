"""Sums of the gateways' demand: whole and fresh, or none."""

from datetime import timedelta
from typing import Any

import pytest

from motet_api.wire import Demand, ModelDemand
from motet_operator.metrics_api.demand import DemandBook, Gateway
from motet_operator.metrics_api.gateways import gateways_of
from tests.operator.factories import MODEL, NAMESPACE, NOW

A, B = Gateway("http://10.0.0.1:8080"), Gateway("http://10.0.0.2:8080")
LEAVING = Gateway("http://10.0.0.3:8080", ready=False)


def demand(waiting: int, running: int = 0, name: str = MODEL) -> Demand:
    model = ModelDemand(namespace=NAMESPACE, name=name, waiting=waiting, running=running)
    return Demand(at=0.0, models=[model])


def value(book: DemandBook, seconds: float = 0.0) -> int | None:
    reading = book.reading(NAMESPACE, MODEL, NOW + timedelta(seconds=seconds))
    return reading.value if reading is not None else None


def book_of(*gateways: Gateway) -> DemandBook:
    book = DemandBook(max_age_seconds=10)
    book.set_gateways(gateways, NOW)
    return book


def test_waiting_and_running_are_summed_over_gateways() -> None:
    book = book_of(A, B)
    book.heard(A, demand(3, 2), NOW)
    book.heard(B, demand(4, 1), NOW - timedelta(seconds=3))
    reading = book.reading(NAMESPACE, MODEL, NOW)
    assert reading is not None
    assert (reading.value, reading.at) == (10, NOW - timedelta(seconds=3))


def test_idle_is_zero_and_not_unknown() -> None:
    book = book_of(A)
    book.heard(A, demand(0), NOW)
    assert value(book) == 0


def test_nothing_heard_is_unknown() -> None:
    assert value(DemandBook(10)) is None
    assert value(book_of()) is None
    assert value(book_of(A)) is None


def test_one_of_two_is_unknown() -> None:
    book = book_of(A, B)
    book.heard(A, demand(3), NOW)
    assert value(book) is None


def test_a_model_that_a_gateway_does_not_know_yet_is_unknown() -> None:
    book = book_of(A, B)
    book.heard(A, demand(3), NOW)
    book.heard(B, demand(3, name="other"), NOW)
    assert value(book) is None


@pytest.mark.parametrize(("seconds", "expected"), [(9.9, 3), (10.1, None)])
def test_a_share_that_is_too_old_is_unknown(seconds: float, expected: int | None) -> None:
    book = book_of(A)
    book.heard(A, demand(3), NOW)
    book.set_gateways([A], NOW + timedelta(seconds=seconds))
    assert value(book, seconds) == expected


def test_a_list_of_gateways_that_is_too_old_is_unknown() -> None:
    book = book_of(A)
    book.heard(A, demand(3), NOW + timedelta(seconds=11))
    assert value(book, 11) is None


def test_a_gateway_that_leaves_counts_while_it_answers_and_is_not_waited_for() -> None:
    book = book_of(A, LEAVING)
    book.heard(A, demand(3), NOW)
    assert value(book) == 3
    book.heard(LEAVING, demand(0, 2), NOW)
    assert value(book) == 5


def test_only_leaving_gateways_are_unknown() -> None:
    book = book_of(LEAVING)
    book.heard(LEAVING, demand(1), NOW)
    assert value(book) is None


def test_a_gateway_that_is_gone_is_forgotten() -> None:
    book = book_of(A, B)
    book.heard(A, demand(3), NOW)
    book.heard(B, demand(4), NOW)
    book.set_gateways([A], NOW)
    assert value(book) == 3
    book.set_gateways([A, B], NOW)
    assert value(book) is None


def endpoint(address: str, **conditions: bool) -> dict[str, Any]:
    return {"addresses": [address], "conditions": conditions}


PORTS = [{"name": "metrics", "port": 9090}, {"name": "http", "port": 8080}]


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"ports": PORTS, "endpoints": [endpoint("10.0.0.1", ready=True)]}, {A}),
        ({"ports": PORTS, "endpoints": [endpoint("10.0.0.1")]}, {A}),
        ({"ports": PORTS, "endpoints": [endpoint("10.0.0.1", ready=False)]}, set()),
        ({"ports": PORTS, "endpoints": [endpoint("10.0.0.3", ready=False, serving=True)]}, {LEAVING}),
        ({"ports": PORTS[:1], "endpoints": [endpoint("10.0.0.1", ready=True)]}, set()),
        ({"ports": PORTS, "endpoints": [endpoint("fd00::1", ready=True)]}, {Gateway("http://[fd00::1]:8080")}),
        ({"ports": None, "endpoints": None}, set()),
    ],
)
def test_gateways_of_endpoint_slices(item: dict[str, Any], expected: set[Gateway]) -> None:
    assert gateways_of([item]) == expected
