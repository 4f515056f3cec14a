"""Requests from the asyncio side: a fault ends whom it concerns, and whoever leaves lets go of what it held."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from motet_api.errors import ErrorCode
from motet_api.identity import AdapterId, Digest
from motet_runtime.classification import LabelRequest, score_labels
from motet_runtime.engine.pace import Pace
from motet_runtime.engine.plan import Plan, SlotLoad
from motet_runtime.engine.scheduler import Budgets, Scheduler
from motet_runtime.engine.sequence import Adapter, RowFailure, SampledToken, SamplingParams
from motet_runtime.engine.thread import EngineThread
from motet_runtime.errors import RequestError
from motet_runtime.generation import GenerationRequest, Generator

VOICE = Adapter(AdapterId("voice@v1"), Digest("sha256:" + "1" * 64), 8)
POISON = 66
"""A prompt with this token cannot be computed, alone; one with `FATAL` ends its whole step."""
FATAL = 67


class ByteTokenizer:
    """One token a byte."""

    all_special_ids: tuple[int, ...] = ()

    def decode(self, token_ids: Any, **_: Any) -> str:
        return bytes(token_ids).decode(errors="replace")


class Writer:
    """Writes "a" for ever."""

    def run(self, plan: Plan) -> dict[int, SampledToken | RowFailure]:
        time.sleep(0.001)  # a step takes time, in which others run: else an answer is over before anybody looks
        prompts = {chunk.sequence.id: chunk.sequence.prompt for chunk in plan.chunks if chunk.samples}
        if any(FATAL in prompt for prompt in prompts.values()):
            raise RuntimeError("no memory")
        return {
            one: RowFailure("not finite") if POISON in prompt else SampledToken(97, -1.0, (), (float("nan"),))
            for one, prompt in prompts.items()
        }

    def forget_adapter(self, digest: Digest) -> None:
        """Nothing is kept."""

    def pack_next(self) -> bool:
        """Nothing is left to do."""
        return False


@dataclass
class Scene:
    """An engine that writes, and a generator before it."""

    adapters: dict[AdapterId, Adapter] = field(default_factory=lambda: {VOICE.id: VOICE})
    fault: str = ""

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(Budgets(4, 64, 64, 4, 2, 64), (0,), Pace(2.0, 100.0))
        self.failures: list[int] = []
        self.engine = EngineThread(
            self.scheduler,
            Writer(),
            lambda: 0.0,
            self.copy,
            lambda *_: None,
            lambda: self.failures.append(1),
        )
        self.generator = Generator(self.engine, ByteTokenizer(), self.adapters, 256)

    def copy(self, _: SlotLoad) -> None:
        if self.fault:
            raise OSError(self.fault)

    async def idle(self) -> None:
        """Nothing runs, waits or is held."""

        async def check() -> bool:
            done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            loop = asyncio.get_running_loop()

            def look() -> None:
                self.scheduler.check()
                busy = self.scheduler.running or self.scheduler.waiting or self.scheduler.pool.held
                loop.call_soon_threadsafe(done.set_result, not busy)

            self.engine.call(look)
            return await done

        async with asyncio.timeout(5):
            while not await check():
                await asyncio.sleep(0.001)


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[Scene]:
    scene = Scene(**options)
    thread = threading.Thread(target=scene.engine.loop)
    thread.start()
    try:
        yield scene
        await scene.idle()
    finally:
        scene.engine.stop()
        await asyncio.to_thread(thread.join)


def asking(prompt: str = "hello", tokens: int = 3, **more: Any) -> GenerationRequest:
    return GenerationRequest(tuple(prompt.encode()), SamplingParams(tokens), **more)


def for_ever(prompt: str = "hello", **more: Any) -> GenerationRequest:
    return asking(prompt, 200, **more)


async def error_of(work: Callable[[], Any]) -> RequestError:
    with pytest.raises(RequestError) as caught:
        await work()
    return caught.value


async def test_answers_come_in_the_order_of_their_requests() -> None:
    async with running() as scene:
        answers = await scene.generator.generate([asking(tokens=count) for count in (5, 1, 3)])
        assert [answer.text for answer in answers] == ["aaaaa", "a", "aaa"]
        (stopped,) = await scene.generator.generate([for_ever(stop=("b", "aaa"))])
        assert (stopped.text, stopped.stop_text, stopped.finish) == ("", "aaa", "stop_sequence")


async def test_where_one_of_several_answers_fails_the_others_end_with_it() -> None:
    async with running() as scene:
        requests = [for_ever(), for_ever("x" + chr(POISON)), for_ever()]
        error = await error_of(lambda: scene.generator.generate(requests))
        assert (error.code, error.message) == (ErrorCode.GENERATION_FAILED, "not finite")
        await scene.idle()


async def test_a_step_that_fails_ends_its_requests_and_the_next_is_served() -> None:
    async with running() as scene:
        error = await error_of(lambda: scene.generator.generate([asking(chr(FATAL))]))
        assert (error.code, error.message) == (ErrorCode.GENERATION_FAILED, "RuntimeError: no memory")
        assert scene.failures == [1]
        assert (await scene.generator.generate([asking()]))[0].text == "aaa"


async def test_a_stream_that_is_closed_or_cancelled_ends_in_the_engine() -> None:
    async with running() as scene:
        async with aclosing(scene.generator.stream(await scene.generator.prepare(for_ever()))) as stream:
            assert (await anext(stream)).piece == "a"
        await scene.idle()
        task = asyncio.create_task(scene.generator.generate([for_ever(), for_ever(adapter=VOICE.id)]))
        async with asyncio.timeout(5):
            while scene.engine.gauges.running < 2:
                await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await scene.idle()


async def test_an_adapter_that_went_between_its_naming_and_its_use_is_an_error_that_says_so() -> None:
    async with running() as scene:
        del scene.adapters[VOICE.id]
        for work in (
            lambda: scene.generator.prepare(asking(adapter=VOICE.id)),
            lambda: score_labels(scene.generator, [LabelRequest((97,), VOICE.id, ((98,),))]),
        ):
            error = await error_of(work)
            assert error.code is ErrorCode.ADAPTER_NOT_FOUND
            assert "voice@v1 is not loaded: retry" in error.message


async def test_weights_that_do_not_arrive_fail_those_who_need_them() -> None:
    async with running(fault="the disk is gone") as scene:
        answers = await asyncio.gather(
            scene.generator.generate([asking(adapter=VOICE.id)]),
            scene.generator.generate([asking()]),
            return_exceptions=True,
        )
        assert isinstance(answers[0], RequestError)
        assert "voice@v1 could not be loaded: OSError: the disk is gone" in answers[0].message
        assert not isinstance(answers[1], BaseException)
        scene.fault = ""
        assert (await scene.generator.generate([asking(adapter=VOICE.id)]))[0].text == "aaa", "tried anew"


async def test_scores_that_are_no_numbers_are_an_error_and_no_answer() -> None:
    async with running() as scene:
        error = await error_of(lambda: score_labels(scene.generator, [LabelRequest((97,), VOICE.id, ((98,),))]))
        assert error.code is ErrorCode.GENERATION_FAILED
        assert "voice@v1 are not finite" in error.message


async def test_an_activated_lora_without_its_invocation_is_refused_by_field() -> None:
    async with running() as scene:
        scene.adapters[VOICE.id] = replace(VOICE, invocation=(60, 62))
        error = await error_of(lambda: scene.generator.prepare(asking(adapter=VOICE.id, field="prompt")))
        assert (error.param, "'<>' (tokens [60, 62]): add it" in error.message) == ("prompt", True)
