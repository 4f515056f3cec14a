"""The work queue: coalescing, one worker a key, retries with back-off; with a clock that stands still."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from motet_operator.errors import UnavailableError
from motet_operator.running.queue import LAST_BACKOFF_SECONDS, KeyState, Place, WorkQueue


class Sleeps:
    """A sleep that lasts until the test says so."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self._open: list[asyncio.Event] = []

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        over = asyncio.Event()
        self._open.append(over)
        try:
            await over.wait()
        finally:
            self._open.remove(over)

    @property
    def pending(self) -> int:
        return len(self._open)

    def end(self) -> None:
        for over in self._open:
            over.set()


class Results:
    """Takes down how passes ended."""

    def __init__(self) -> None:
        self.seen: list[str] = []

        self.errors: list[str] = []

    def pass_ended(self, key: str, result: str, seconds: float, error: str) -> None:
        self.seen.append(result)
        self.errors.append(error)


class Looks:
    """A pass that the test answers: with seconds, None, or an error."""

    def __init__(self, *answers: float | Exception | None) -> None:
        self.answers = list(answers)
        self.keys: list[str] = []
        self.at_once = 0
        self.most_at_once = 0
        self.gate: asyncio.Event | None = None

    async def __call__(self, key: str) -> float | None:
        self.keys.append(key)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.gate is not None:
                await self.gate.wait()
            answer = self.answers.pop(0) if self.answers else None
            if isinstance(answer, Exception):
                raise answer
            return answer
        finally:
            self.at_once -= 1


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@asynccontextmanager
async def running(
    looks: Looks,
    results: Results | None = None,
    sleeps: Sleeps | None = None,
    clock: Callable[[], float] = lambda: 0.0,
    workers: int = 2,
) -> AsyncIterator[WorkQueue[str]]:
    queue: WorkQueue[str] = WorkQueue(looks, [results or Results()], clock, sleeps or Sleeps(), lambda: 0.5)
    task = asyncio.create_task(queue.run(workers))
    try:
        yield queue
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_wakes_before_a_pass_are_one() -> None:
    looks = Looks()
    async with running(looks) as queue:
        for _ in range(5):
            queue.wake("a")
        queue.wake("b")
        assert queue.depth == 2
        await settle()
    assert sorted(looks.keys) == ["a", "b"]


async def test_a_wake_during_a_pass_brings_another_and_never_two_at_once() -> None:
    looks = Looks()
    looks.gate = asyncio.Event()
    async with running(looks) as queue:
        queue.wake("a")
        await settle()
        for _ in range(3):
            queue.wake("a")
        await settle()
        assert looks.keys == ["a"]
        looks.gate.set()
        await settle()
    assert looks.keys == ["a", "a"]
    assert looks.most_at_once == 1


async def test_other_keys_go_on_meanwhile() -> None:
    looks = Looks()
    looks.gate = asyncio.Event()
    async with running(looks) as queue:
        queue.wake("a")
        queue.wake("b")
        await settle()
        assert looks.most_at_once == 2


async def test_looks_again_after_the_time_it_asked_for() -> None:
    looks, sleeps = Looks(15.0), Sleeps()
    async with running(looks, sleeps=sleeps) as queue:
        queue.wake("a")
        await settle()
        assert (looks.keys, sleeps.asked) == (["a"], [15.0])
        sleeps.end()
        await settle()
    assert looks.keys == ["a", "a"]


async def test_an_earlier_wake_takes_the_place_of_the_later_look() -> None:
    looks, sleeps = Looks(15.0, 15.0), Sleeps()
    async with running(looks, sleeps=sleeps) as queue:
        queue.wake("a")
        await settle()
        queue.wake("a")
        await settle()
        assert sleeps.pending == 1


async def test_none_waits_for_a_wake() -> None:
    sleeps = Sleeps()
    async with running(Looks(None), sleeps=sleeps) as queue:
        queue.wake("a")
        await settle()
    assert sleeps.asked == []


async def test_errors_are_tried_again_ever_more_slowly_and_success_begins_anew() -> None:
    errors: list[float | Exception | None] = [UnavailableError("no") for _ in range(12)]
    looks, sleeps, results = Looks(*errors, 15.0, UnavailableError("no")), Sleeps(), Results()
    async with running(looks, results, sleeps) as queue:
        queue.wake("a")
        for _ in range(14):
            await settle()
            sleeps.end()
    assert sleeps.asked[:4] == [0.5, 1.0, 2.0, 4.0]
    assert sleeps.asked[11] == LAST_BACKOFF_SECONDS
    assert sleeps.asked[12:14] == [15.0, 0.5]
    assert results.seen[:1] == ["retry"]
    assert results.seen[12] == "done"


async def test_an_unexpected_error_ends_the_pass_and_not_the_worker() -> None:
    looks, results = Looks(ZeroDivisionError("bug")), Results()
    async with running(looks, results, workers=1) as queue:
        queue.wake("a")
        queue.wake("b")
        await settle()
    assert looks.keys == ["a", "b"]
    assert results.seen == ["failed", "done"]
    assert results.errors == ["ZeroDivisionError('bug')", ""]


async def test_the_longest_pass_is_measured() -> None:
    looks, now = Looks(), [100.0]
    looks.gate = asyncio.Event()
    async with running(looks, clock=lambda: now[0]) as queue:
        assert queue.longest_pass_seconds() == 0
        queue.wake("a")
        await settle()
        now[0] = 130.0
        assert queue.longest_pass_seconds() == 30
        looks.gate.set()
        await settle()
        assert queue.longest_pass_seconds() == 0


async def test_the_longest_wait_counts_from_when_there_were_workers() -> None:
    looks, now = Looks(), [0.0]
    looks.gate = asyncio.Event()
    queue: WorkQueue[str] = WorkQueue(looks, [], lambda: now[0], Sleeps(), lambda: 0.5)
    queue.wake("a")
    queue.wake("b")
    now[0] = 100.0
    assert queue.longest_wait_seconds() == 0, "a standby keeps nobody waiting"
    task = asyncio.create_task(queue.run(1))
    await settle()
    now[0] = 103.0
    assert queue.longest_wait_seconds() == 3
    looks.gate.set()
    await settle()
    assert queue.longest_wait_seconds() == 0
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_where_each_key_is() -> None:
    looks, now = Looks(UnavailableError("no"), UnavailableError("no")), [0.0]
    async with running(looks, clock=lambda: now[0], workers=1) as queue:
        queue.wake("failed")
        await settle()
        looks.gate = asyncio.Event()
        queue.wake("busy")
        await settle()
        queue.wake("next")
        now[0] = 0.2
        assert dict(queue.places()) == {
            "busy": Place(KeyState.RUNNING, 0.2, 0),
            "next": Place(KeyState.WAITING, 0.2, 0),
            "failed": Place(KeyState.LATER, 0.3, 1),
        }


async def test_a_drain_ends_what_runs_and_begins_nothing() -> None:
    looks = Looks()
    looks.gate = asyncio.Event()
    async with running(looks, workers=2) as queue:
        queue.wake("a")
        await settle()
        draining = asyncio.create_task(queue.drain(60))
        queue.wake("b")
        await settle()
        assert not draining.done()
        looks.gate.set()
        await draining
        await settle()
        assert looks.keys == ["a"]
        assert [key for key, _ in queue.places()] == ["b"]


async def test_a_drain_waits_no_longer_than_it_is_told() -> None:
    looks = Looks()
    looks.gate = asyncio.Event()
    async with running(looks) as queue:
        queue.wake("a")
        await settle()
        await queue.drain(0)
        assert looks.at_once == 1


async def test_workers_can_begin_again_and_nothing_of_before_is_due() -> None:
    looks, sleeps = Looks(15.0), Sleeps()
    queue: WorkQueue[str] = WorkQueue(looks, [], lambda: 0.0, sleeps, lambda: 0.5)
    for _ in range(2):
        queue.wake("a")
        task = asyncio.create_task(queue.run(1))
        await settle()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await settle()
        assert (sleeps.pending, dict(queue.places())) == (0, {})
    assert looks.keys == ["a", "a"]
