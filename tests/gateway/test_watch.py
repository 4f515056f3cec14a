"""Following the API server, with the real client against a stand-in for the server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from motet_gateway.routing import Routing
from motet_gateway.table import ObjectKey, Table
from motet_gateway.watch import KubernetesSource, Reader, resources
from tests.gateway.fake_api_server import FakeApiServer, running_api_server
from tests.gateway.kube_samples import endpoint_slice, lora_adapter, model_deployment

ADAPTERS, SLICES = "loraadapters", "endpointslices"


class Follower:
    """A source that follows the stand-in without its pauses."""

    def __init__(self, server: FakeApiServer) -> None:
        self.server = server
        self.routing = Routing()
        self.failures = 0
        self.pauses: list[float] = []

    def failed(self) -> None:
        self.failures += 1

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0.001)

    @property
    def table(self) -> Table:
        return self.routing.table

    def traffic(self) -> dict[str, int]:
        found = self.table.adapters.get(ObjectKey("default", "churn"))
        return {share.version: share.weight for share in found.traffic} if found else {}

    async def until(self, true: Callable[[], object], what: str = "") -> None:
        deadline = asyncio.get_running_loop().time() + 20
        while not true():
            assert asyncio.get_running_loop().time() < deadline, f"never: {what or true}"
            await asyncio.sleep(0.002)

    async def until_watching(self) -> None:
        await self.until(lambda: all(self.server.watches.get(plural) for plural in (ADAPTERS, SLICES)), "watching")


@asynccontextmanager
async def following(server: FakeApiServer, namespaces: list[str] | None = None) -> AsyncIterator[Follower]:
    follower = Follower(server)
    async with running_api_server(server) as api:
        readers = [(resource, Reader(api, resource)) for resource in resources(namespaces or [])]
        source = KubernetesSource(readers, follower.routing, follower.failed, follower.pause)
        running = asyncio.create_task(source.run())
        try:
            yield follower
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


def cluster(**options: object) -> FakeApiServer:
    objects = {
        "modeldeployments": [model_deployment()],
        ADAPTERS: [lora_adapter(traffic={"v1": 1}), lora_adapter("topic"), lora_adapter("mood")],
        SLICES: [endpoint_slice({"a": True})],
    }
    return FakeApiServer(objects=objects, **options)  # type: ignore[arg-type]


async def test_everything_is_listed_in_pages_and_then_watched() -> None:
    async with following(cluster(page=2)) as follower:
        await follower.until(lambda: follower.routing.synced)
        assert len(follower.table.adapters) == 3
        assert [pod.key.name for pod in follower.table.all_pods()] == ["a"]
        await follower.until_watching()
        assert follower.server.watched_from[ADAPTERS] == ["100"]
        assert follower.server.selectors == {
            "modeldeployments": "",
            ADAPTERS: "",
            SLICES: "motet.dev/model-deployment",
        }
        await follower.server.emit(ADAPTERS, "MODIFIED", lora_adapter(version=101, traffic={"v1": 9}))
        await follower.until(lambda: follower.traffic() == {"v1": 9})
        await follower.server.emit(ADAPTERS, "DELETED", lora_adapter(version=102))
        await follower.until(lambda: len(follower.table.adapters) == 2)
        await follower.server.emit(ADAPTERS, "ADDED", lora_adapter("new", version=103))
        await follower.until(lambda: len(follower.table.adapters) == 3)
        assert follower.failures == 0


async def test_a_watch_that_ends_goes_on_from_where_it_was() -> None:
    async with following(cluster()) as follower:
        await follower.until_watching()
        await follower.server.emit(ADAPTERS, "BOOKMARK", {"metadata": {"resourceVersion": "150"}})
        await follower.server.emit(ADAPTERS, "MODIFIED", lora_adapter(version=151, traffic={"v1": 9}))
        await follower.until(lambda: follower.traffic() == {"v1": 9})
        await follower.server.emit(ADAPTERS, "BOOKMARK", {"metadata": {"resourceVersion": "160"}})
        follower.server.hang_up(ADAPTERS)
        await follower.until(lambda: follower.server.watched_from[ADAPTERS] == ["100", "160"], "watched again")
        assert follower.server.lists[ADAPTERS] == 1


async def test_a_place_that_is_gone_is_listed_anew() -> None:
    async with following(cluster()) as follower:
        await follower.until_watching()
        follower.server.gone = ADAPTERS
        follower.server.objects[ADAPTERS] = [lora_adapter(version=150, traffic={"v1": 5})]
        follower.server.hang_up(ADAPTERS)
        await follower.until(lambda: follower.traffic() == {"v1": 5})
        assert len(follower.table.adapters) == 1
        assert follower.server.lists[ADAPTERS] == 2
        assert follower.failures == 0


async def test_the_last_table_stays_while_the_server_is_away() -> None:
    async with following(cluster()) as follower:
        await follower.until_watching()
        before = follower.table
        follower.server.away = True
        for plural in list(follower.server.watches):
            follower.server.hang_up(plural)
        await follower.until(lambda: max(follower.pauses) > 10, "asked ever more slowly")
        assert max(follower.pauses) <= 30
        assert follower.table is before
        assert follower.failures >= 5
        follower.server.objects[ADAPTERS] = []
        follower.server.away = False
        await follower.until_watching()
        await follower.server.emit(ADAPTERS, "MODIFIED", lora_adapter(version=200, traffic={"v1": 2}))
        await follower.until(lambda: follower.traffic() == {"v1": 2})


async def test_nothing_is_published_before_every_list_is_read() -> None:
    async with following(cluster(away=True)) as follower:
        await follower.until(lambda: follower.failures >= 3, "failures")
        assert not follower.routing.synced
        follower.server.away = False
        await follower.until(lambda: follower.routing.synced)
        assert len(follower.table.models) == 1


def test_namespaces_narrow_the_paths() -> None:
    assert [resource.path() for resource in resources(["red", "blue"])][:4] == [
        "/apis/motet.dev/v1alpha1/namespaces/red/modeldeployments",
        "/apis/motet.dev/v1alpha1/namespaces/red/loraadapters",
        "/apis/discovery.k8s.io/v1/namespaces/red/endpointslices",
        "/apis/motet.dev/v1alpha1/namespaces/blue/modeldeployments",
    ]
    assert resources([])[2].path() == "/apis/discovery.k8s.io/v1/endpointslices"
