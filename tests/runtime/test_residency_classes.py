"""Required, preferred, on demand: who is loaded first, what a pod waits for, and what a request waits for."""

import asyncio

import pytest

from motet_api.errors import ErrorCode
from motet_api.identity import AdapterId
from motet_api.loraadapter import Residency as ResidencyClass
from motet_api.reasons import AdapterReason
from motet_api.wire import DesiredAdapter
from motet_runtime.adapters.residency import PARALLEL, Residency
from motet_runtime.errors import RequestError
from tests.runtime.test_residency import RESIDENT, Scene, reconciling

REQUIRED, PREFERRED, ON_DEMAND = ResidencyClass.REQUIRED, ResidencyClass.PREFERRED, ResidencyClass.ON_DEMAND
STANDBY = AdapterReason.STANDBY


def row(name: str, residency: ResidencyClass, uri: str = "") -> DesiredAdapter:
    return DesiredAdapter(id=AdapterId(name), uri=uri or name, residency=residency)


async def refusal(scene: Scene, name: str) -> RequestError:
    with pytest.raises(RequestError) as refused:
        await scene.residency.resolve(name)
    return refused.value


async def test_what_is_required_is_loaded_before_what_is_preferred() -> None:
    async with reconciling() as scene:
        preferred = [row(f"a{number}@v1", PREFERRED) for number in range(PARALLEL)]
        required = [row(f"z{number}@v1", REQUIRED) for number in range(PARALLEL)]
        scene.loader.blocked = {one.uri: asyncio.Event() for one in required}
        scene.want_rows(*preferred, *required)
        await scene.until_asked(*(one.uri for one in required))
        for event in scene.loader.blocked.values():
            event.set()
        await scene.until_asked(*(one.uri for one in (*preferred, *required)))


@pytest.mark.parametrize("residency", [PREFERRED, ON_DEMAND])
async def test_only_what_is_required_keeps_a_new_pod_from_being_ready(residency: ResidencyClass) -> None:
    async with reconciling() as scene:
        scene.loader.failures["a@v1"] = AdapterReason.FETCH_FAILED
        scene.want_rows(row("a@v1", residency), row("b@v1", REQUIRED))
        assert not scene.residency.settled()
        assert [waiting.id for waiting in scene.residency.awaited()] == ["b@v1"]
        async with asyncio.timeout(5):
            while not scene.residency.settled():
                await asyncio.sleep(0.001)


async def test_what_is_required_from_now_on_is_waited_for_even_while_it_is_unloaded() -> None:
    async with reconciling() as scene:
        scene.want_rows(row("a@v1", PREFERRED))
        await scene.until(a_v1=RESIDENT)
        scene.loader.may_unload.clear()
        scene.want_rows(row("a@v1", REQUIRED, uri="other"))
        async with asyncio.timeout(5):
            while not scene.loader.unloaded:
                await asyncio.sleep(0.001)
        assert [waiting.id for waiting in scene.residency.awaited()] == ["a@v1"]
        scene.loader.may_unload.set()
        await scene.until(a_v1=RESIDENT)
        assert scene.residency.settled()


async def test_what_is_resident_is_said_whether_or_not_it_is_used() -> None:
    async with reconciling() as scene:
        scene.want_rows(row("a@v1", REQUIRED), row("b@v1", PREFERRED))
        held = {"a@v1": RESIDENT, "b@v1": RESIDENT}
        await scene.until(a_v1=RESIDENT, b_v1=RESIDENT)
        quiet = scene.residency.report()
        with scene.residency.use(AdapterId("a@v1")):
            assert scene.reasons() == held
            assert scene.residency.report() == quiet, "requests that come and go change nothing of it"
        assert scene.residency.report() == quiet


async def test_what_is_on_demand_is_loaded_once_by_the_first_requests_however_many() -> None:
    async with reconciling() as scene:
        scene.want_rows(row("a@v1", ON_DEMAND), row("b@v1", REQUIRED))
        await scene.until(a_v1=STANDBY, b_v1=RESIDENT)
        scene.loader.blocked["a@v1"] = asyncio.Event()
        asking = [asyncio.create_task(scene.residency.resolve(name)) for name in ["a@v1", "a"] * 20]
        await scene.until_asked("b@v1", "a@v1")
        assert scene.reasons()["a@v1"] is AdapterReason.LOADING
        assert not any(task.done() for task in asking)
        scene.loader.blocked["a@v1"].set()
        assert await asyncio.gather(*asking) == ["a@v1"] * 40
        assert scene.loader.loaded == ["b@v1", "a@v1"]
        assert await scene.residency.resolve("a") == "a@v1"


async def test_requests_that_wait_go_before_what_is_only_preferred() -> None:
    async with reconciling() as scene:
        preferred = [row(f"p{number}@v1", PREFERRED) for number in range(2 * PARALLEL)]
        scene.loader.blocked = {one.uri: asyncio.Event() for one in preferred}
        scene.want_rows(row("a@v1", ON_DEMAND), *preferred)
        await scene.until_asked(*(one.uri for one in preferred[:PARALLEL]))
        asking = asyncio.create_task(scene.residency.resolve("a@v1"))
        await asyncio.sleep(0)
        scene.loader.blocked["p0@v1"].set()
        assert await asyncio.wait_for(asking, 5) == "a@v1"
        assert scene.loader.loaded[PARALLEL] == "a@v1"


async def test_a_load_that_fails_is_answered_with_its_reason_and_tried_again_by_a_later_request() -> None:
    async with reconciling() as scene:
        scene.loader.failures["a@v1"] = AdapterReason.FETCH_FAILED
        scene.want_rows(row("a@v1", ON_DEMAND))
        refused = await refusal(scene, "a@v1")
        assert refused.code is ErrorCode.ADAPTER_NOT_READY
        assert "FetchFailed" in refused.message
        assert "as told" in refused.message
        assert "FetchFailed" in (await refusal(scene, "a@v1")).message
        assert scene.loader.loaded == ["a@v1"], "not again at once"
        scene.loader.failures.clear()
        scene.clock.now += 2.0
        await asyncio.sleep(0.01)
        assert scene.loader.loaded == ["a@v1"], "nor by itself"
        assert await scene.residency.resolve("a@v1") == "a@v1"


async def test_a_request_waits_only_so_long_and_the_load_goes_on() -> None:
    async with reconciling() as scene:
        scene.residency = Residency(scene.loader, scene.clock, on_demand_seconds=0.02)
        running = asyncio.create_task(scene.residency.run())
        scene.loader.blocked["a@v1"] = asyncio.Event()
        scene.want_rows(row("a@v1", ON_DEMAND))
        refused = await refusal(scene, "a@v1")
        assert refused.code is ErrorCode.ADAPTER_NOT_READY
        assert "retry" in refused.message
        scene.loader.blocked["a@v1"].set()
        await scene.until(a_v1=RESIDENT)
        assert await scene.residency.resolve("a@v1") == "a@v1"
        assert scene.loader.loaded == ["a@v1"]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_request_whose_adapter_is_withdrawn_while_it_waits_is_told_so() -> None:
    async with reconciling() as scene:
        scene.loader.blocked["a@v1"] = asyncio.Event()
        scene.want_rows(row("a@v1", ON_DEMAND))
        asking = asyncio.create_task(refusal(scene, "a@v1"))
        await scene.until_asked("a@v1")
        scene.want_rows()
        assert (await asyncio.wait_for(asking, 5)).code is ErrorCode.ADAPTER_NOT_FOUND
        scene.loader.blocked["a@v1"].set()
        async with asyncio.timeout(5):
            while scene.loader.unloaded != ["a@v1"]:
                await asyncio.sleep(0.001)


async def test_a_class_that_changes_loads_and_never_unloads() -> None:
    async with reconciling() as scene:
        scene.want_rows(row("a@v1", ON_DEMAND))
        await scene.until(a_v1=STANDBY)
        scene.want_rows(row("a@v1", REQUIRED))
        await scene.until(a_v1=RESIDENT)
        scene.want_rows(row("a@v1", ON_DEMAND))
        await scene.until(a_v1=RESIDENT)
        assert (scene.loader.loaded, scene.loader.unloaded) == (["a@v1"], [])


async def test_names_count_versions_on_demand_too() -> None:
    async with reconciling() as scene:
        scene.want_rows(row("a@v1", ON_DEMAND), row("a@v2", REQUIRED), row("b@v1", PREFERRED))
        await scene.until(a_v1=STANDBY, a_v2=RESIDENT, b_v1=RESIDENT)
        ambiguous = await refusal(scene, "a")
        assert ambiguous.code is ErrorCode.MODEL_AMBIGUOUS
        assert "a@v1, a@v2" in ambiguous.message
        assert "a@v1, a@v2, b@v1" in (await refusal(scene, "c")).message


async def test_what_other_pods_serve_must_arrive_before_a_new_pod_is_ready() -> None:
    async with reconciling() as scene:
        scene.loader.failures["a@v1"] = AdapterReason.RANK_TOO_LARGE
        proven = row("a@v1", REQUIRED).model_copy(update={"proven": True})
        scene.want_rows(proven)
        await scene.until(a_v1=AdapterReason.RANK_TOO_LARGE)
        assert not scene.residency.settled()
        assert scene.residency.report()[0].proven
        scene.want_rows(proven.model_copy(update={"proven": False}))
        assert scene.residency.settled()
