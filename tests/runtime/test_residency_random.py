"""Documents that follow one another faster than loads end: whatever the order, the last one is what is resident."""

import asyncio
import random
from collections import Counter

import pytest

from motet_api.artifact.adapter import Artifact
from motet_api.errors import ErrorCode
from motet_api.identity import AdapterId, Digest
from motet_api.loraadapter import Residency as ResidencyClass
from motet_api.reasons import AdapterReason
from motet_api.wire import DesiredAdapter, DesiredAdapters
from motet_runtime.adapters.residency import MOST_PARALLEL, Residency
from motet_runtime.errors import AdapterError, RequestError
from tests.runtime.test_residency import Clock

IDS = [AdapterId(f"a{number}@v1") for number in range(6)]
SOURCES = ["x", "y", "broken"]


class SlowLoader:
    """Takes a random number of turns for everything, and watches that nobody is in another's way."""

    def __init__(self, random_: random.Random) -> None:
        self.random = random_
        self.installed: dict[AdapterId, str] = {}
        self.busy: Counter[AdapterId] = Counter()

    async def load(self, desired: DesiredAdapter, store: str) -> Artifact:
        assert not self.busy[desired.id], "an id is loaded or unloaded by one at a time"
        self.busy[desired.id] += 1
        assert self.busy.total() <= MOST_PARALLEL
        await self.turns()
        self.busy[desired.id] -= 1
        if desired.uri == "broken":
            raise AdapterError(AdapterReason.FETCH_FAILED, "as told")
        assert desired.id not in self.installed, "what was there is removed first"
        self.installed[desired.id] = desired.uri
        return Artifact(Digest("sha256:" + {"x": "1", "y": "2"}[desired.uri] * 64), 8, 100, ())

    async def unload(self, adapter: AdapterId) -> None:
        assert not self.busy[adapter]
        self.busy[adapter] += 1
        del self.installed[adapter]
        await self.turns()
        self.busy[adapter] -= 1

    async def turns(self) -> None:
        for _ in range(self.random.randrange(6)):
            await asyncio.sleep(0)


def document(random_: random.Random) -> DesiredAdapters:
    chosen = random_.sample(IDS, random_.randrange(len(IDS) + 1))
    return DesiredAdapters(
        adapters=[
            DesiredAdapter(id=name, uri=random_.choice(SOURCES), residency=random_.choice(list(ResidencyClass)))
            for name in chosen
        ]
    )


async def ask(residency: Residency, loader: SlowLoader, name: AdapterId) -> None:
    """A request: while it holds the adapter, its weights do not change."""
    try:
        adapter = await residency.resolve(name)
    except RequestError as error:
        assert error.code in (ErrorCode.ADAPTER_NOT_READY, ErrorCode.ADAPTER_NOT_FOUND, ErrorCode.VERSION_NOT_FOUND)
        return
    with residency.use(adapter):
        held = loader.installed[adapter]
        await loader.turns()
        assert loader.installed[adapter] == held


@pytest.mark.parametrize("seed", range(40))
async def test_what_is_resident_is_what_the_last_document_says(seed: int) -> None:
    random_ = random.Random(seed)
    clock, loader = Clock(), SlowLoader(random_)
    residency = Residency(loader, clock)
    running = asyncio.create_task(residency.run())
    asking = []
    last = DesiredAdapters(adapters=[])
    for _ in range(60):
        last = document(random_)
        residency.set_desired(last)
        asking += [asyncio.create_task(ask(residency, loader, name)) for name in random_.choices(IDS, k=3)]
        clock.now += random_.choice([0.0, 1.0, 20.0])
        for _ in range(random_.randrange(8)):
            await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await asyncio.gather(*asking)
        wanted = {one.id: one for one in last.adapters}
        good = {name: one.uri for name, one in wanted.items() if one.uri != "broken"}
        must = {name for name in good if wanted[name].residency is not ResidencyClass.ON_DEMAND}
        while not (must <= loader.installed.keys() <= good.keys() and not loader.busy.total()):
            assert not running.done(), running.exception()
            await asyncio.sleep(0.001)
    assert all(good[name] == source for name, source in loader.installed.items())
    assert sorted(residency.resident()) == sorted(loader.installed)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
