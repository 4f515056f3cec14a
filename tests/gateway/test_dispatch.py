"""The queue: order, places, bounds, and who is refused when. Time stands still unless a test moves it."""

import asyncio
from collections.abc import Mapping

import pytest

from motet_api.errors import ErrorCode
from motet_api.identity import AdapterId
from motet_gateway.demand import demand
from motet_gateway.dispatch import Dispatcher, Lease, Ticket
from motet_gateway.errors import RequestRefusedError, UnavailableError
from motet_gateway.fleet import Fleet, PodView
from motet_gateway.table import Model, Pod
from tests.gateway.factories import TINY, fleet, model, pod, table, view

A, B = pod("a"), pod("b")


class Desk:
    """A dispatcher with a clock in hand."""

    def __init__(self, pods: Mapping[Pod, PodView | None], **bounds: float) -> None:
        self.now = 1000.0
        self.model: Model = model(**bounds)  # type: ignore[arg-type]
        self.dispatcher = Dispatcher(lambda: self.now)
        self.set(pods)

    def set(self, pods: Mapping[Pod, PodView | None]) -> None:
        self.dispatcher.update(table([self.model]), fleet(pods))

    async def ask(self, adapter: str | None = None, ticket: Ticket | None = None) -> "asyncio.Task[Lease]":
        """A request that has got as far as it gets."""
        name = None if adapter is None else AdapterId(adapter)
        task = asyncio.create_task(self.dispatcher.acquire(ticket or self.dispatcher.ticket(self.model, name)))
        await settle()
        return task

    @property
    def counts(self) -> tuple[int, int]:
        return self.dispatcher.waiting(TINY), self.dispatcher.running(TINY)


async def settle() -> None:
    """Let every task that can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def release(task: "asyncio.Task[Lease]") -> None:
    (await task).release()
    await settle()


def error(task: "asyncio.Task[Lease]") -> UnavailableError:
    found = task.exception()
    assert isinstance(found, UnavailableError)
    return found


async def test_the_pod_with_the_fewest_in_flight_is_taken() -> None:
    desk = Desk({A: view(batch=3), B: view(batch=2)})
    asked = [await desk.ask() for _ in range(5)]
    assert [task.result().pod.key.name for task in asked] == ["a", "b", "a", "b", "a"]
    assert desk.counts == (0, 5)
    assert (await desk.ask()).done() is False
    assert desk.counts == (1, 5)


async def test_a_place_goes_to_whoever_has_waited_longest() -> None:
    desk = Desk({A: view(batch=1)})
    running, first, second = [await desk.ask() for _ in range(3)]
    await release(running)
    assert (first.done(), second.done()) == (True, False)
    await release(first)
    assert second.done()
    assert desk.counts == (0, 1)
    await release(second)
    assert desk.counts == (0, 0)


async def test_releasing_twice_frees_one_place() -> None:
    desk = Desk({A: view(batch=1)})
    lease = await (await desk.ask())
    lease.release()
    lease.release()
    await desk.ask()
    assert (await desk.ask()).done() is False


async def test_a_request_for_a_busy_version_does_not_hold_up_the_others() -> None:
    desk = Desk({A: view("x@v1", batch=1), B: view("y@v1", batch=1)})
    running_x, running_y = await desk.ask("x@v1"), await desk.ask("y@v1")
    waits_x, waits_y = await desk.ask("x@v1"), await desk.ask("y@v1")
    await release(running_y)
    assert (waits_x.done(), waits_y.done()) == (False, True)
    await release(running_x)
    assert waits_x.result().pod == A


async def test_a_new_pod_takes_waiting_requests_at_once() -> None:
    desk = Desk({A: view(batch=1)})
    await desk.ask()
    waiting = [await desk.ask() for _ in range(3)]
    desk.set({A: view(batch=1), B: view(batch=2)})
    await settle()
    assert [task.done() for task in waiting] == [True, True, False]
    assert {task.result().pod for task in waiting[:2]} == {B}


async def test_a_full_queue_refuses_and_says_when_to_try_again() -> None:
    desk = Desk({A: view(batch=1)}, max_requests=2)
    waiting = [await desk.ask() for _ in range(3)][1:]
    refused = error(await desk.ask())
    assert (refused.code, refused.retry_after) == (ErrorCode.OVERLOADED, 2)
    assert [task.done() for task in waiting] == [False, False]


@pytest.mark.parametrize(
    ("pods", "adapter", "code", "said"),
    [
        ({}, None, ErrorCode.NO_READY_POD, "no pod of default/tiny became ready within 10 s"),
        ({A: None}, "x@v1", ErrorCode.NO_READY_POD, "became ready"),
        ({A: view(loading=["x@v1"])}, "x@v1", ErrorCode.ADAPTER_NOT_READY, "x@v1 was not loaded within 10 s"),
        ({A: view(batch=0)}, None, ErrorCode.NO_READY_POD, "busy for 10 s"),
    ],
)
async def test_waiting_is_bounded_and_the_error_says_for_what(
    pods: Mapping[Pod, PodView | None], adapter: str | None, code: ErrorCode, said: str
) -> None:
    desk = Desk(pods, max_wait=10)
    asked = await desk.ask(adapter)
    desk.now += 9.9
    desk.dispatcher.expire()
    await settle()
    assert not asked.done()
    desk.now += 0.1
    desk.dispatcher.expire()
    await settle()
    assert (error(asked).code, desk.counts) == (code, (0, 0))
    assert said in error(asked).message
    assert error(asked).retry_after


async def test_a_version_that_is_loading_is_waited_for() -> None:
    desk = Desk({A: view(loading=["x@v1"])})
    asked = await desk.ask("x@v1")
    assert not asked.done()
    desk.set({A: view("x@v1")})
    await settle()
    assert asked.result().pod == A


@pytest.mark.parametrize("said", [view(), view(failed={"x@v1": "CorruptWeights"})])
async def test_a_version_that_will_not_come_is_refused_at_once_and_while_waiting(said: PodView) -> None:
    desk = Desk({A: view(loading=["x@v1"])})
    waiting, base = await desk.ask("x@v1"), await desk.ask()
    desk.set({A: said})
    await settle()
    later = await desk.ask("x@v1")
    assert [error(task).code for task in (waiting, later)] == [ErrorCode.ADAPTER_NOT_READY] * 2
    assert base.result().pod == A


async def test_who_leaves_is_gone_from_the_queue_at_once() -> None:
    desk = Desk({A: view(batch=1)})
    running, leaves, stays = [await desk.ask() for _ in range(3)]
    leaves.cancel()
    await settle()
    assert desk.counts == (1, 1)
    await release(running)
    assert stays.done()


async def test_who_leaves_in_the_moment_of_being_served_gives_the_place_back() -> None:
    desk = Desk({A: view(batch=1)})
    running, leaves, stays = [await desk.ask() for _ in range(3)]
    (await running).release()
    leaves.cancel()
    await settle()
    assert leaves.cancelled()
    assert stays.done()
    assert desk.counts == (0, 1)


async def test_a_request_that_comes_again_is_first_and_keeps_its_deadline() -> None:
    desk = Desk({A: view(batch=1)}, max_requests=1, max_wait=10)
    ticket = desk.dispatcher.ticket(desk.model, None)
    failed = await desk.ask(ticket=ticket)
    waiting = await desk.ask()
    desk.set({})
    (await failed).release()
    again = await desk.ask(ticket=ticket)
    assert desk.counts == (2, 0), "a full queue does not refuse who has waited before"
    desk.set({A: view(batch=1)})
    await settle()
    assert (again.done(), waiting.done()) == (True, False)
    desk.set({})
    desk.now += 10
    late = await desk.ask(ticket=ticket)
    assert error(late).code == ErrorCode.NO_READY_POD


async def test_requests_for_a_deleted_model_are_refused() -> None:
    desk = Desk({})
    waiting = await desk.ask()
    desk.dispatcher.update(table([]), Fleet())
    await settle()
    found = waiting.exception()
    assert isinstance(found, RequestRefusedError)
    assert found.code == ErrorCode.MODEL_NOT_FOUND


async def test_demand_lists_every_model_with_its_counts() -> None:
    desk = Desk({A: view(batch=1)})
    for _ in range(3):
        await desk.ask()
    idle = model("idle", namespace="other")
    found = demand(table([desk.model, idle]), desk.dispatcher, at=5.0)
    assert [(m.namespace, m.name, m.waiting, m.running) for m in found.models] == [
        ("default", "tiny", 2, 1),
        ("other", "idle", 0, 0),
    ]
    assert found.at == 5.0


async def test_a_question_needs_no_place_but_a_pod() -> None:
    desk = Desk({A: view(batch=1), B: view(batch=1, draining=True)})
    await desk.ask()
    assert desk.dispatcher.any_pod(TINY) == A
    desk.set({B: view(draining=True)})
    with pytest.raises(UnavailableError):
        desk.dispatcher.any_pod(TINY)


async def test_every_gateway_has_a_version_loaded_on_the_same_pod() -> None:
    def pod_of(adapter: str, names: str) -> str:
        desk = Desk({pod(name): view(standby=[adapter]) for name in names})
        lease = desk.dispatcher.spare(desk.model, AdapterId(adapter))
        assert lease is not None
        return lease.pod.key.name

    adapters = [f"a{number}@v1" for number in range(20)]
    found = {adapter: pod_of(adapter, "abc") for adapter in adapters}
    assert {adapter: pod_of(adapter, "cab") for adapter in adapters} == found
    assert set(found.values()) == {"a", "b", "c"}


@pytest.mark.parametrize("spills", [True, False])
async def test_a_full_pod_makes_another_load_only_what_is_loaded_on_demand(spills: bool) -> None:
    desk = Desk({A: view("churn@v1", batch=1), B: view(standby=["churn@v1"], batch=1)})
    name = AdapterId("churn@v1")
    first = await desk.ask("churn@v1")
    second = await desk.ask(ticket=desk.dispatcher.ticket(desk.model, name, spills))
    assert desk.counts == ((0, 2) if spills else (1, 1))
    await release(first)
    (await second).release()


async def test_a_pod_that_failed_to_load_is_the_last_resort() -> None:
    desk = Desk({A: view(failing=["churn@v1"]), B: view(standby=["churn@v1"], batch=1)})
    first = await desk.ask("churn@v1")
    assert (first.result().pod, first.result().last_resort) == (B, False)
    waiting = await desk.ask("churn@v1")
    assert desk.counts == (1, 1), "the other pod may yet load it"
    desk.set({A: view(failing=["churn@v1"]), B: view(failing=["churn@v1"], batch=1)})
    await settle()
    assert (waiting.result().pod, waiting.result().last_resort) == (A, True)
    for task in (first, waiting):
        await release(task)


async def test_a_spare_place_is_one_that_nobody_waits_for() -> None:
    desk = Desk({A: view("churn@v1", batch=1)})
    name = AdapterId("churn@v1")
    lease = desk.dispatcher.spare(desk.model, name)
    assert lease is not None
    assert desk.dispatcher.spare(desk.model, name) is None, "the pod is full"
    waiting = await desk.ask("churn@v1")
    lease.release()
    await settle()
    desk.set({A: view("churn@v1", batch=2)})
    other = await desk.ask("churn@v1")
    third = await desk.ask("churn@v1")
    desk.set({A: view("churn@v1", batch=2), B: view("churn@v2")})
    assert desk.dispatcher.spare(desk.model, AdapterId("churn@v2")) is None, "somebody waits for the model"
    for task in (waiting, other):
        await release(task)
    await release(third)
