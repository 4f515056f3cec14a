"""The election, with a clock that the test moves: never two at work, and no longer without one than need be."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from motet_operator.errors import ConflictError, NotFoundError, OperatorError, RefusedError, UnavailableError
from motet_operator.running.election import Alone, Election, Timing
from motet_operator.running.lease import LeaseName
from tests.operator.timeline import Timeline, settle

NAME = LeaseName("motet-system", "motet-operator")
TIMING = Timing()


class Leases:
    """One Lease, kept as the API server keeps it: a write must name the version that it replaces."""

    def __init__(self) -> None:
        self.raw: dict[str, Any] | None = None
        self._version = 0
        self.writes = 0

    def put(self, body: Mapping[str, Any]) -> dict[str, Any]:
        self._version += 1
        self.writes += 1
        self.raw = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self._version)}}
        return self.raw

    @property
    def holder(self) -> str:
        return "" if self.raw is None else self.raw["spec"]["holderIdentity"]


class Line:
    """One replica's line to the API server, which the test can cut, or make hang, or let answers get lost."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self.error: OperatorError | None = None
        self.hangs = False
        self.loses_answers = False

    async def read(self, path: str) -> Mapping[str, Any]:
        assert path == NAME.path
        await self._reach()
        if self._leases.raw is None:
            raise NotFoundError(path)
        return self._leases.raw

    async def create(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        assert path == NAME.collection
        await self._reach()
        if self._leases.raw is not None:
            raise ConflictError(path)
        return self._answer(self._leases.put(body))

    async def replace(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        await self._reach()
        if self._leases.raw is None:
            raise NotFoundError(path)
        if self._leases.raw["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            raise ConflictError(path)
        return self._answer(self._leases.put(body))

    def _answer(self, raw: dict[str, Any]) -> dict[str, Any]:
        if self.loses_answers:
            raise UnavailableError("no answer")
        return raw

    async def _reach(self) -> None:
        # A call takes a turn of the event loop, so that two replicas can cross each other.
        await asyncio.sleep(0)
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error


class Replica:
    """A replica: `works` is true between the begin and the end of its work."""

    def __init__(self, name: str, time: Timeline, leases: Leases, now: datetime | None = None) -> None:
        self.line = Line(leases)
        self.now = now or datetime(2026, 11, 24, tzinfo=UTC)
        self.election = Election(self.line, NAME, name, time.clock, lambda: self.now, time.sleep, TIMING)
        self.works = False
        self.begun = 0
        self.slow_to_stop = asyncio.Event()
        self.slow_to_stop.set()
        self.task: asyncio.Task[None] | None = None

    async def _work(self) -> None:
        self.works = True
        self.begun += 1
        try:
            await asyncio.Event().wait()
        finally:
            await self.slow_to_stop.wait()
            self.works = False

    def start(self) -> None:
        self.task = asyncio.create_task(self.election.run(self._work))

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            with suppress(asyncio.CancelledError):
                await self.task


@asynccontextmanager
async def replicas(time: Timeline, leases: Leases, *names: str) -> AsyncIterator[list[Replica]]:
    made = [Replica(name, time, leases) for name in names]
    for replica in made:
        replica.start()
        await settle()
    try:
        yield made
    finally:
        for replica in made:
            replica.line.hangs, replica.line.error = False, UnavailableError("over")
            await replica.stop()


async def test_the_first_leads_at_once_and_keeps_it() -> None:
    time, leases = Timeline(), Leases()
    async with replicas(time, leases, "a", "b") as (a, b):
        assert (a.works, b.works) == (True, False)
        for _ in range(60):
            await time.advance(1)
            assert (a.works, b.works, a.election.leads(), b.election.leads()) == (True, False, True, False)
        assert a.begun == 1
        assert leases.writes == 1 + 60 / TIMING.renew_every


async def test_many_that_begin_together_have_one_leader() -> None:
    time, leases = Timeline(), Leases()
    made = [Replica(name, time, leases) for name in "abcde"]
    for replica in made:
        replica.start()
    await time.advance(5)
    assert [replica.works for replica in made].count(True) == 1
    for replica in made:
        await replica.stop()


async def test_who_leaves_hands_over_within_a_second() -> None:
    time, leases = Timeline(), Leases()
    async with replicas(time, leases, "a", "b") as (a, b):
        await time.advance(7.3)
        await a.stop()
        assert (a.works, leases.holder) == (False, "")
        await time.advance(TIMING.look_every)
        assert b.works


async def test_the_lease_is_given_back_once_the_work_has_stopped_and_not_before() -> None:
    time, leases = Timeline(), Leases()
    async with replicas(time, leases, "a", "b") as (a, b):
        a.slow_to_stop.clear()
        assert a.task is not None
        a.task.cancel()
        await time.advance(8)
        assert (a.works, leases.holder, b.works) == (True, "a", False)
        a.slow_to_stop.set()
        await time.advance(1)
        assert (a.works, b.works) == (False, True)


async def test_who_dies_is_followed_when_its_time_is_over() -> None:
    time, leases = Timeline(), Leases()
    async with replicas(time, leases, "a", "b") as (a, b):
        await time.advance(5)
        a.line.hangs = True
        assert a.task is not None
        a.task.cancel()
        await time.advance(TIMING.lease - TIMING.renew_every - TIMING.look_every)
        assert not b.works
        await time.advance(TIMING.renew_every + 2 * TIMING.look_every)
        assert b.works
        assert leases.raw is not None
        assert leases.raw["spec"]["leaseTransitions"] == 1


@pytest.mark.parametrize("trouble", ["error", "hangs", "loses_answers"])
async def test_who_cannot_renew_stops_before_another_begins(trouble: str) -> None:
    time, leases = Timeline(), Leases()
    async with replicas(time, leases, "a", "b") as (a, b):
        await time.advance(5)
        setattr(a.line, trouble, UnavailableError("away") if trouble == "error" else True)
        stopped = None
        for step in range(400):
            await time.advance(0.1)
            assert not (a.works and b.works)
            assert not (a.election.leads() and b.election.leads())
            if not a.works and stopped is None:
                stopped = step / 10
        assert stopped is not None
        assert stopped <= TIMING.renew_within
        # Writes that arrive and answers that do not keep the Lease: nobody else may take it, and nobody works.
        assert b.works is (trouble != "loses_answers")


async def test_who_could_not_renew_stands_by_and_leads_again() -> None:
    time, leases = Timeline(), Leases()
    async with replicas(time, leases, "a") as (a,):
        a.line.error = UnavailableError("away")
        await time.advance(30)
        assert (a.works, a.election.leads()) == (False, False)
        a.line.error = None
        await time.advance(TIMING.look_every)
        assert (a.works, a.begun) == (True, 2)


async def test_a_short_absence_of_the_api_server_stops_nobody() -> None:
    time, leases = Timeline(), Leases()
    async with replicas(time, leases, "a", "b") as (a, b):
        await time.advance(5)
        for replica in (a, b):
            replica.line.error = UnavailableError("restarting")
        await time.advance(TIMING.renew_within - TIMING.renew_every - 0.5)
        for replica in (a, b):
            replica.line.error = None
        await time.advance(20)
        assert (a.works, a.begun, b.works) == (True, 1, False)


async def test_a_process_that_was_stopped_may_do_nothing_when_it_goes_on() -> None:
    time, leases = Timeline(), Leases()
    async with replicas(time, leases, "a") as (a,):
        await time.advance(5)
        await time.freeze(TIMING.renew_within)
        assert not a.election.leads(), "before any task of it has noticed"
        await time.advance(0)
        await time.advance(5)
        assert a.begun == 2


@pytest.mark.parametrize("jump", [timedelta(days=400), -timedelta(days=400)])
async def test_a_clock_that_jumps_changes_nothing(jump: timedelta) -> None:
    time, leases = Timeline(), Leases()
    async with replicas(time, leases, "a", "b") as (a, b):
        for jumping in (a, b):
            jumping.now += jump
            for _ in range(20):
                await time.advance(1)
                assert (a.works, b.works, a.begun) == (True, False, 1)


async def test_another_that_took_it_is_given_way_to_at_once() -> None:
    time, leases = Timeline(), Leases()
    async with replicas(time, leases, "a") as (a,):
        assert leases.raw is not None
        spec = leases.raw["spec"] | {"holderIdentity": "somebody"}
        leases.put({"metadata": {"name": NAME.name}, "spec": spec})
        await time.advance(2 * TIMING.renew_every)
        assert (a.works, a.election.leads(), leases.holder) == (False, False, "somebody")


async def test_a_write_that_is_refused_for_its_version_is_made_again() -> None:
    time, leases = Timeline(), Leases()
    async with replicas(time, leases, "a") as (a,):
        assert leases.raw is not None
        leases.put(leases.raw | {"metadata": {"name": NAME.name, "annotations": {"touched": "by hand"}}})
        await time.advance(20)
        assert (a.works, a.begun) == (True, 1)


async def test_a_lease_that_is_deleted_stays_with_its_holder() -> None:
    time, leases = Timeline(), Leases()
    async with replicas(time, leases, "a", "b") as (a, b):
        await time.advance(5.5)
        leases.raw = None
        for _ in range(30):
            await time.advance(1)
            assert (a.works, b.works) == (True, False)
        assert (leases.holder, a.begun) == ("a", 1)


async def test_a_lease_that_may_not_be_read_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    time, leases = Timeline(), Leases()
    replica = Replica("a", time, leases)
    replica.line.error = RefusedError("leases is forbidden")
    replica.start()
    await time.advance(30)
    assert not replica.works
    assert [record.getMessage() for record in caplog.records].count(f"Lease {NAME.path}: leases is forbidden") == 1
    await replica.stop()


async def test_work_that_fails_ends_the_election_with_its_error() -> None:
    async def work() -> None:
        raise ZeroDivisionError("bug")

    time, leases = Timeline(), Leases()
    with pytest.raises(ZeroDivisionError):
        await Replica("a", time, leases).election.run(work)
    assert leases.holder == "", "and gives the Lease back"


async def test_alone_leads_always() -> None:
    done = []

    async def work() -> None:
        done.append(alone.leads())

    alone = Alone()
    await alone.run(work)
    assert done == [True]
