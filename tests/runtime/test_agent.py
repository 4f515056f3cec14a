"""The agent beside another engine, over HTTP, with an engine that keeps vLLM's contract in memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from prometheus_client import CollectorRegistry
from starlette.routing import Route

from motet_api.identity import AdapterId
from motet_api.loraadapter import Residency as ResidencyClass
from motet_api.names import ADAPTERS_PATH, BASE_PATH
from motet_api.reasons import AdapterReason
from motet_api.wire import DesiredAdapter, DesiredAdapters
from motet_runtime.adapters.residency import Residency
from motet_runtime.agent.base_shapes import describe_base
from motet_runtime.agent.engine_client import EngineClient
from motet_runtime.agent.loader import EngineLoader
from motet_runtime.agent.routes import make_apps
from motet_runtime.agent.sidecar import Sidecar
from motet_runtime.errors import ModelError
from motet_runtime.lifecycle import Lifecycle
from tests.models import make_adapter, make_classifier, make_tiny_llama


@dataclass
class FakeVllm:
    """What vLLM 0.32 answers, seen on a real one."""

    adapters: dict[str, str] = field(default_factory=dict)
    loads: list[str] = field(default_factory=list)
    refusal: str = ""
    success: str = "Success: LoRA adapter '{}' added successfully."
    forgets: bool = False
    away: bool = False

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.get("/v1/models", self.models),
                web.post("/v1/load_lora_adapter", self.load),
                web.post("/v1/unload_lora_adapter", self.unload),
            ]
        )
        return app

    async def models(self, _: web.Request) -> web.Response:
        if self.away:
            return web.Response(status=503, text="starting")
        cards: list[dict[str, Any]] = [{"id": "tiny", "root": "/base", "parent": None}]
        cards += [{"id": name, "root": path, "parent": "tiny"} for name, path in self.adapters.items()]
        return web.json_response({"object": "list", "data": cards})

    async def load(self, request: web.Request) -> web.Response:
        body = await request.json()
        name, path = body["lora_name"], body["lora_path"]
        if name in self.adapters:
            return _error(400, f"The lora adapter '{name}' has already been loaded.")
        if self.refusal:
            return _error(500, self.refusal)
        assert (Path(path) / "adapter_model.safetensors").is_file()
        if not self.forgets:
            self.adapters[name] = path
        self.loads.append(name)
        return web.Response(text=self.success.replace("{}", name))

    async def unload(self, request: web.Request) -> web.Response:
        name = (await request.json())["lora_name"]
        if self.adapters.pop(name, None) is None:
            return _error(404, f"The lora adapter '{name}' cannot be found.")
        return web.Response(text=f"Success: LoRA adapter '{name}' removed successfully.")


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message, "type": "x", "code": status}}, status=status)


@dataclass
class Agent:
    sidecar: Sidecar
    engine: FakeVllm
    folder: Path

    def want(self, residency: ResidencyClass = ResidencyClass.REQUIRED, **folders: str) -> None:
        rows = [
            DesiredAdapter(
                id=AdapterId(name.replace("_", "@")), uri=f"file://{self.folder / path}", residency=residency
            )
            for name, path in folders.items()
        ]
        self.sidecar.want(DesiredAdapters(adapters=rows))

    def reasons(self) -> dict[str, AdapterReason]:
        return {row.id: row.reason for row in self.sidecar.report().adapters}

    async def until(self, **reasons: AdapterReason) -> None:
        wanted = {name.replace("_", "@"): reason for name, reason in reasons.items()}
        async with asyncio.timeout(10):
            while self.reasons() != wanted:
                await asyncio.sleep(0.005)


@asynccontextmanager
async def agent(folder: Path, engine: FakeVllm) -> AsyncIterator[Agent]:
    async with TestServer(engine.app()) as server, aiohttp.ClientSession() as session:
        client = EngineClient(session, str(server.make_url("")))
        loop = asyncio.get_running_loop()
        base = describe_base(folder / "base", "tiny")
        loader = EngineLoader(client, base, folder / "cache", folder / "claims", max_rank=8)
        residency = Residency(loader, loop.time)
        sidecar = Sidecar("tiny", base, 16, client, residency, Lifecycle(loop.time))
        running = asyncio.create_task(residency.run())
        try:
            yield Agent(sidecar, engine, folder)
        finally:
            running.cancel()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("agent")
    base = make_tiny_llama(folder / "base")
    make_adapter(folder / "one", base, seed=1)
    make_adapter(folder / "two", base, seed=2)
    make_adapter(folder / "wide", base, rank=16)
    make_classifier(folder / "head", base)
    make_adapter(folder / "other", make_tiny_llama(folder / "other-base", hidden=128))
    return folder


async def test_adapters_are_loaded_under_their_digest_and_unloaded(folder: Path) -> None:
    async with agent(folder, FakeVllm()) as one:
        one.want(a_v1="one", b_v1="two")
        await one.until(a_v1=AdapterReason.RESIDENT, b_v1=AdapterReason.RESIDENT)
        report = one.sidecar.report().adapters[0]
        assert report.digest is not None and report.rank == 4
        assert one.engine.adapters["a@v1"] == str(folder / "cache" / report.digest.replace(":", "-"))
        one.want(b_v1="two")
        await one.until(b_v1=AdapterReason.RESIDENT)
        assert list(one.engine.adapters) == ["b@v1"]
        assert len(list((folder / "cache").iterdir())) == 1


async def test_a_bad_adapter_fails_alone_and_says_why(folder: Path) -> None:
    async with agent(folder, FakeVllm()) as one:
        one.want(wide_v1="wide", head_v1="head", gone_v1="nowhere", other_v1="other", good_v1="one")
        await one.until(
            wide_v1=AdapterReason.RANK_TOO_LARGE,
            head_v1=AdapterReason.UNSUPPORTED,
            gone_v1=AdapterReason.SOURCE_NOT_FOUND,
            other_v1=AdapterReason.BASE_MISMATCH,
            good_v1=AdapterReason.RESIDENT,
        )
        assert one.engine.loads == ["good@v1"]


async def test_what_the_engine_refuses_is_said_in_its_words(folder: Path) -> None:
    async with agent(folder, FakeVllm(refusal="does not fit the base")) as one:
        one.want(a_v1="one")
        await one.until(a_v1=AdapterReason.BASE_MISMATCH)
        assert "does not fit the base" in one.sidecar.report().adapters[0].message


@pytest.mark.parametrize("success", ["", "done", '{"status": "ok"}'])
async def test_the_words_of_success_do_not_matter(folder: Path, success: str) -> None:
    async with agent(folder, FakeVllm(success=success)) as one:
        one.want(a_v1="one")
        await one.until(a_v1=AdapterReason.RESIDENT)
        await one.sidecar.look()
        assert one.reasons() == {"a@v1": AdapterReason.RESIDENT}


async def test_what_the_engine_does_not_list_is_not_resident_whatever_it_said(folder: Path) -> None:
    async with agent(folder, FakeVllm(forgets=True)) as one:
        one.want(a_v1="one")
        await one.until(a_v1=AdapterReason.RESIDENT)
        await one.sidecar.look()
        assert one.reasons() == {"a@v1": AdapterReason.LOADING}
        one.engine.forgets = False
        await one.until(a_v1=AdapterReason.RESIDENT)
        await one.sidecar.look()
        assert one.reasons() == {"a@v1": AdapterReason.RESIDENT}


async def test_a_name_that_the_engine_has_from_elsewhere_is_loaded_anew(folder: Path) -> None:
    async with agent(folder, FakeVllm(adapters={"a@v1": "/somewhere/else"})) as one:
        one.want(a_v1="one")
        await one.until(a_v1=AdapterReason.RESIDENT)
        assert one.engine.adapters["a@v1"].startswith(str(folder / "cache"))


async def test_an_agent_that_was_restarted_takes_over_what_is_loaded(folder: Path) -> None:
    engine = FakeVllm()
    for _ in range(2):
        async with agent(folder, engine) as one:
            one.want(a_v1="one")
            await one.until(a_v1=AdapterReason.RESIDENT)
    assert engine.loads == ["a@v1"]


async def test_an_engine_that_was_restarted_gets_its_adapters_again(folder: Path) -> None:
    async with agent(folder, FakeVllm()) as one:
        one.want(a_v1="one")
        await one.until(a_v1=AdapterReason.RESIDENT)
        one.engine.adapters.clear()
        await one.sidecar.look()
        assert one.reasons() == {"a@v1": AdapterReason.LOADING}
        await one.until(a_v1=AdapterReason.RESIDENT)
        assert list(one.engine.adapters) == ["a@v1"]


async def test_a_silent_engine_is_not_an_empty_one(folder: Path) -> None:
    async with agent(folder, FakeVllm()) as one:
        assert "does not answer" in (one.sidecar.not_ready_because() or "")
        one.want(a_v1="one")
        await one.until(a_v1=AdapterReason.RESIDENT)
        await one.sidecar.look()
        assert one.sidecar.not_ready_because() is None
        report = one.sidecar.report()
        assert (report.base_loaded, report.max_batch_size) == (True, 16)
        one.engine.away = True
        await one.sidecar.look()
        assert one.reasons() == {"a@v1": AdapterReason.RESIDENT}
        assert "does not answer" in (one.sidecar.not_ready_because() or "")
        assert not one.sidecar.report().base_loaded


async def test_on_demand_is_loaded_at_once_because_requests_do_not_pass_the_agent(folder: Path) -> None:
    async with agent(folder, FakeVllm()) as one:
        one.want(ResidencyClass.ON_DEMAND, a_v1="one")
        await one.until(a_v1=AdapterReason.RESIDENT)


def test_the_base_is_described_from_its_files(folder: Path, tmp_path: Path) -> None:
    described = describe_base(folder / "base", "tiny")
    assert (described.hidden_size, described.dtype_bytes, len(described.modules)) == (64, 4, 14)
    assert described.modules["model.layers.1.mlp.down_proj"] == (64, 128)
    with pytest.raises(ModelError, match="cannot be read"):
        describe_base(tmp_path, "tiny")


async def test_what_may_only_be_read_changes_nothing(folder: Path) -> None:
    async with agent(folder, FakeVllm()) as one:
        admin, reading = make_apps(one.sidecar, CollectorRegistry())
        methods = {route.path: route.methods for route in reading.routes if isinstance(route, Route)}
        assert set(methods) == {ADAPTERS_PATH, BASE_PATH, "/metrics"}
        assert all(found == {"GET", "HEAD"} for found in methods.values())
        assert {"PUT"} in [route.methods for route in admin.routes if isinstance(route, Route)]
