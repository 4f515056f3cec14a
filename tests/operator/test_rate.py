"""How fast the API server may be called."""

import asyncio

from motet_operator.kube.rate import RateLimit
from tests.operator.timeline import Timeline


async def test_a_burst_goes_at_once_and_the_rest_by_the_rate() -> None:
    time = Timeline()
    limit = RateLimit(10, 5, time.clock, time.sleep)
    begun, done = time.now, []

    async def call(number: int) -> None:
        await limit.take()
        done.append((number, round(time.now - begun, 3)))

    calls = [asyncio.create_task(call(number)) for number in range(8)]
    await time.advance(1)
    assert done == [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0.1), (6, 0.2), (7, 0.3)]
    await asyncio.gather(*calls)


async def test_a_quiet_time_saves_up_a_burst_and_no_more() -> None:
    time = Timeline()
    limit = RateLimit(10, 2, time.clock, time.sleep)
    await time.advance(3600)
    assert [await limit.take(), await limit.take()] == [0, 0]
    third = asyncio.create_task(limit.take())
    await time.advance(0.05)
    assert not third.done()
    await time.advance(0.06)
    assert round(await third, 3) == 0.1


async def test_a_pause_holds_everybody() -> None:
    time = Timeline()
    limit = RateLimit(10, 5, time.clock, time.sleep)
    limit.pause(3)
    limit.pause(1)
    calls = [asyncio.create_task(limit.take()) for _ in range(2)]
    await time.advance(2.9)
    assert not any(call.done() for call in calls)
    await time.advance(0.2)
    assert [round(await call, 3) for call in calls] == [3, 3]
