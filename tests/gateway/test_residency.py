"""Polling: what an answer, a silence and a surprise do to what is known of a pod."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from motet_api.identity import AdapterId
from motet_api.reasons import AdapterReason
from motet_api.wire import AdapterReport, AdaptersReport
from motet_gateway.fleet import PodView
from motet_gateway.residency import PodUnreachableError, ResidencyPoller, view_of
from motet_gateway.routing import Routing
from motet_gateway.table import Pod, Table
from motet_gateway.table_builder import TableBuilder
from tests.gateway.factories import adapter, model, pod, table

NAME = AdapterId("churn@v1")


def report(*resident: str, draining: bool = False) -> AdaptersReport:
    return AdaptersReport(
        model="tiny",
        base_loaded=True,
        desired_known=True,
        draining=draining,
        max_batch_size=4,
        adapters=[AdapterReport(id=AdapterId(name), reason=AdapterReason.RESIDENT) for name in resident],
    )


class Pods:
    """Answers polls with what a test has set, and counts them."""

    def __init__(self) -> None:
        self.answer: AdaptersReport | Exception = report(NAME)
        self.polls = 0
        self.failures = 0

    async def fetch(self, _pod: Pod) -> AdaptersReport:
        self.polls += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def failed(self, _pod: Pod) -> None:
        self.failures += 1


class Setting:
    def __init__(self, poll_seconds: float) -> None:
        self.now = 0.0
        self.pods = Pods()
        self.routing = Routing()
        self.poller = ResidencyPoller(
            self.routing, self.pods, lambda: self.now, self.pods.failed, poll_seconds, trust_seconds=5
        )
        self.routing.listen(self.poller.follow)

    @property
    def view(self) -> PodView | None:
        return self.routing.fleet.views.get(pod().key)

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not true():
                await asyncio.sleep(0.001)


@asynccontextmanager
async def polling(poll_seconds: float = 0.001, where: Table | None = None) -> AsyncIterator[Setting]:
    setting = Setting(poll_seconds)
    setting.routing.set_table(where or table([model()], [], [pod()]))
    try:
        yield setting
    finally:
        await setting.poller.close()


def test_a_report_becomes_a_view() -> None:
    reasons = {
        "a@v1": AdapterReason.RESIDENT,
        "b@v1": AdapterReason.LOADING,
        "c@v1": AdapterReason.CORRUPT_WEIGHTS,
        "d@v1": AdapterReason.DRAINING,
    }
    entries = [AdapterReport(id=AdapterId(name), reason=reason, message="why") for name, reason in reasons.items()]
    view = view_of(report().model_copy(update={"adapters": entries}))
    assert (view.resident, view.loading, view.failed) == ({"a@v1"}, {"b@v1"}, {"c@v1": "CorruptWeights: why"})


async def test_an_answer_is_known_and_follows_changes() -> None:
    async with polling() as setting:
        await setting.until(lambda: setting.view is not None and NAME in setting.view.resident)
        setting.pods.answer = report(draining=True)
        await setting.until(lambda: setting.view is not None and setting.view.draining)


@pytest.mark.parametrize("failure", [PodUnreachableError("refused"), RuntimeError("a fault of ours")])
async def test_silence_is_unfresh_first_and_unknown_later(failure: Exception) -> None:
    async with polling() as setting:
        await setting.until(lambda: setting.view is not None)
        setting.pods.answer = failure
        await setting.until(lambda: setting.view is not None and not setting.view.fresh)
        setting.now = 4.9
        polls = setting.pods.polls
        await setting.until(lambda: setting.pods.polls > polls + 1)
        assert setting.view is not None
        assert NAME in setting.view.resident
        setting.now = 5.0
        await setting.until(lambda: setting.view is None)
        setting.pods.answer = report(NAME)
        await setting.until(lambda: setting.view is not None and setting.view.fresh)
        assert setting.pods.failures


async def test_surprises_are_believed_and_asked_after_at_once() -> None:
    """The poll's interval is an hour here: every further poll is one that was asked for."""
    async with polling(poll_seconds=3600) as setting:
        await setting.until(lambda: setting.view is not None)
        seen: list[PodView | None] = []
        setting.routing.listen(lambda _table, fleet: seen.append(fleet.views.get(pod().key)))
        for number, surprise in enumerate(
            (
                lambda: setting.poller.doubt(pod().key),
                lambda: setting.poller.draining(pod().key),
            ),
            start=2,
        ):
            surprise()
            await setting.until(
                lambda number=number: setting.pods.polls == number and setting.view == view_of(report(NAME))
            )
        doubted, _, draining, _ = seen
        assert doubted is None
        assert draining is not None
        assert draining.draining


async def test_a_pod_that_leaves_is_forgotten_and_one_that_moves_is_asked_anew() -> None:
    async with polling(poll_seconds=3600) as setting:
        await setting.until(lambda: setting.view is not None)
        moved = Pod(pod().key, pod().model, "127.0.0.1:2", ready=True)
        setting.routing.set_table(table([model()], [], [moved]))
        assert setting.view is None
        await setting.until(lambda: setting.view is not None)
        setting.routing.set_table(table([model()]))
        assert setting.view is None
        assert setting.pods.polls == 2


async def test_pods_are_asked_again_when_the_table_says_anew_what_they_hold() -> None:
    """The operator saw them load it after they were asked here: until they answer, it is not known to be absent."""
    builder = TableBuilder()
    builder.put_model(model())
    builder.set_pods([pod()])
    async with polling(poll_seconds=3600, where=builder.table()) as setting:
        setting.pods.answer = report()
        await setting.until(lambda: setting.view is not None)
        assert setting.routing.fleet.hopeless(model().key, NAME) is not None
        for traffic in ({}, {"v1": 1}):
            polls = setting.pods.polls
            builder.put_adapter(adapter(traffic=traffic))
            setting.routing.set_table(builder.table())
            assert setting.routing.fleet.hopeless(model().key, NAME) is None
            await setting.until(lambda polls=polls: setting.pods.polls == polls + 1)
            await setting.until(lambda: setting.routing.fleet.hopeless(model().key, NAME) is not None)
        builder.put_adapter(adapter("other", of="other"))
        setting.routing.set_table(builder.table())
        assert setting.view is not None
        assert not setting.view.behind, "it says nothing of this model's pods"


async def test_an_answer_from_before_the_change_does_not_count() -> None:
    """The table changes while the pod is being asked."""
    builder = TableBuilder()
    builder.put_model(model())
    builder.set_pods([pod()])
    async with polling(poll_seconds=3600, where=builder.table()) as setting:
        await setting.until(lambda: setting.view is not None)
        asked, go_on = asyncio.Event(), asyncio.Event()

        async def slowly(_pod: Pod) -> AdaptersReport:
            asked.set()
            await go_on.wait()
            go_on.clear()
            return report()

        setting.pods.fetch = slowly  # type: ignore[method-assign]
        setting.poller.doubt(pod().key)
        await asked.wait()
        builder.put_adapter(adapter())
        setting.routing.set_table(builder.table())
        go_on.set()
        await setting.until(lambda: setting.view is not None)
        assert setting.view is not None
        assert setting.view.behind
        go_on.set()
        await setting.until(lambda: setting.view is not None and not setting.view.behind)
