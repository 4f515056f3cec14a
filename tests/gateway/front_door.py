"""The whole gateway in `--table` mode on the loopback, in front of fake pods."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from motet_api.names import DEMAND_PATH, OUTCOMES_PATH
from motet_api.wire import AdapterOutcome, Demand, VersionOutcome
from motet_gateway.main import parse_arguments, serve
from tests.gateway.fake_pod import FakePod, running_pod

CHURN = {
    "name": "churn",
    "model": "tiny",
    "versions": ["v1", "v2"],
    "traffic": [{"version": "v1", "weight": 90}, {"version": "v2", "weight": 10}],
}


BOTH = {"churn@v1", "churn@v2"}


async def until(probe: Callable[[], Awaitable[Any]], seconds: float = 5, what: str = "condition") -> Any:
    """Poll until the probe is true; its value."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not (value := await probe()):
        assert asyncio.get_running_loop().time() < deadline, f"{what} did not hold within {seconds} s"
        await asyncio.sleep(0.005)
    return value


@dataclass
class FrontDoor:
    """A running gateway and a client for it."""

    url: str
    client: aiohttp.ClientSession
    pods: list[FakePod]
    stop: asyncio.Event
    served: "asyncio.Task[None]"
    table: dict[str, Any] = field(default_factory=dict)

    async def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any, dict[str, str]]:
        """Status, JSON and headers of an answer."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.client.post(self.url + path, json=body, headers=names) as answer:
            return answer.status, await answer.json(), {name.lower(): value for name, value in answer.headers.items()}

    async def complete(self, model: str, **headers: str) -> tuple[int, Any, dict[str, str]]:
        """A completion by the OpenAI API."""
        return await self.post("/v1/completions", {"model": model, "prompt": "x"}, **headers)

    async def get(self, path: str) -> tuple[int, str]:
        async with self.client.get(self.url + path) as answer:
            return answer.status, await answer.text()

    async def counts(self) -> tuple[int, int]:
        """Waiting and running, summed over the models."""
        models = Demand.model_validate_json((await self.get(DEMAND_PATH))[1]).models
        return sum(model.waiting for model in models), sum(model.running for model in models)

    async def outcomes(self, name: str = "default/churn") -> AdapterOutcome:
        """What became of the requests of the last minute."""
        status, text = await self.get(f"{OUTCOMES_PATH}/{name}?seconds=60")
        assert status == 200, text
        return AdapterOutcome.model_validate_json(text)

    async def until_outcome(self, version: str, **counts: int) -> VersionOutcome:
        """The version's outcome, once its counts are these."""

        async def found() -> VersionOutcome | None:
            (outcome,) = [each for each in (await self.outcomes()).versions if each.version == version]
            return outcome if outcome.model_dump().items() >= counts.items() else None

        outcome: VersionOutcome = await until(found, what=f"{version}: {counts}")
        return outcome

    def rewrite(self, folder: Path, **changes: Any) -> None:
        """Give the first adapter of the table other fields."""
        self.table["adapters"][0] = self.table["adapters"][0] | changes
        (folder / "table.yaml").write_text(yaml.safe_dump(self.table))

    async def until_counts(self, waiting: int, running: int) -> None:
        async def same() -> bool:
            return await self.counts() == (waiting, running)

        await until(same, what=f"{waiting} waiting, {running} running")


Opening = Callable[..., AbstractAsyncContextManager[FrontDoor]]
"""`front_door` without `endings`."""


@asynccontextmanager
async def front_door(
    folder: Path,
    *pods: FakePod,
    endings: "list[asyncio.Task[None]]",
    adapters: Iterable[dict[str, Any]] = (CHURN,),
    queue: dict[str, int] | None = None,
    agents: Iterable[FakePod] = (),
    flags: Iterable[str] = (),
) -> AsyncIterator[FrontDoor]:
    """A gateway that knows of a model "tiny" with these pods, once it has heard from each of them.

    With `agents`, the pods run vLLM and these say what they hold. It is told to stop at the end of the block. Its task
    goes to `endings`: the server takes a fifth of a second to stop, which the next test need not wait for.
    """
    async with AsyncExitStack() as stack:
        agents = list(agents)
        for pod in [*pods, *agents]:
            await stack.enter_async_context(running_pod(pod))
        entry: dict[str, Any] = {
            "name": "tiny",
            "queue": queue or {},
            "pods": [{"name": pod.name, "address": pod.address} for pod in pods],
        }
        if agents:
            entry["engine"] = "VLLM"
            for each, agent in zip(entry["pods"], agents, strict=True):
                each["reportsAt"] = agent.address
        table = {"models": [entry], "adapters": list(adapters)}
        (folder / "table.yaml").write_text(yaml.safe_dump(table))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        words = ["serve", "--host", "127.0.0.1", "--port", str(port), "--table", str(folder / "table.yaml")]
        stop = asyncio.Event()
        served = asyncio.create_task(serve(parse_arguments([*words, "--grace", "0", "--finish", "1", *flags]), stop))
        client = await stack.enter_async_context(aiohttp.ClientSession())
        door = FrontDoor(f"http://127.0.0.1:{port}", client, list(pods), stop, served, table)

        async def heard_of_all() -> bool:
            if served.done():
                served.result()
            try:
                status, text = await door.get("/metrics")
            except aiohttp.ClientError:
                return False
            return status == 200 and text.count("motet_gateway_pod_usable{") == len(pods)

        await until(heard_of_all, what="the gateway up")
        await until(lambda: _all_usable(door), what="every pod heard of")
        try:
            yield door
        finally:
            for pod in pods:
                pod.go_on.set()
            stop.set()
            endings.append(served)


async def _all_usable(door: FrontDoor) -> bool:
    lines = [
        line for line in (await door.get("/metrics"))[1].splitlines() if line.startswith("motet_gateway_pod_usable{")
    ]
    usable = sum(line.endswith(" 1.0") for line in lines)
    return usable == sum(not pod.draining for pod in door.pods)
