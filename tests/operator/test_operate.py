"""The operator as it is put together, against an API server in memory: from the command line to the last write."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from motet_operator.command_line import make_parser
from motet_operator.errors import WatchesEndedError
from motet_operator.operate import make_leadership, operate
from tests.operator.api_server import ApiServer
from tests.operator.factories import raw_adapter


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [found.getsockname()[1] for found in sockets]
    for found in sockets:
        found.close()
    return ports


class Process:
    """One `motet-operator run`, in this process."""

    def __init__(self, server: ApiServer, address: str, folder: Path) -> None:
        self.server = server
        self.health, self.metrics, self.admin = free_ports(3)
        kubeconfig = folder / "kubeconfig"
        named = {"name": "a", "cluster": {"server": address}, "user": {}, "context": {"cluster": "a", "user": "a"}}
        kubeconfig.write_text(
            json.dumps({"clusters": [named], "users": [named], "contexts": [named], "current-context": "a"})
        )
        words = ["run", "--lease", "motet-system/motet-operator", "--kubeconfig", str(kubeconfig)]
        ports = {"health": self.health, "metrics": self.metrics, "admin": self.admin}
        words += [f"--{name}-port={port}" for name, port in ports.items()]
        self.task = asyncio.create_task(operate(make_parser().parse_args(words)))

    async def get(self, port: int, path: str) -> tuple[int, str]:
        try:
            async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
                return answer.status, await answer.text()
        except aiohttp.ClientConnectionError:
            return 0, ""

    async def until_ready(self) -> None:
        async with asyncio.timeout(10):
            while (await self.get(self.health, "/readyz"))[0] != 200:
                assert not self.task.done(), self.task
                await asyncio.sleep(0.02)

    async def until_leading(self) -> None:
        async with asyncio.timeout(10):
            while "motet_operator_leader 1.0" not in (await self.get(self.metrics, "/metrics"))[1]:
                assert not self.task.done(), self.task
                await asyncio.sleep(0.02)


@asynccontextmanager
async def process(folder: Path, lease: dict[str, Any] | None = None) -> AsyncIterator[Process]:
    server = ApiServer()
    server.objects = {"loraadapters": [raw_adapter()]}
    server.lease = lease
    runner, address = await server.start()
    made = Process(server, address, folder)
    loop = asyncio.get_running_loop()
    try:
        yield made
    finally:
        made.task.cancel()
        await asyncio.wait([made.task])
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        await runner.cleanup()


def held_by_another() -> dict[str, Any]:
    spec = {"holderIdentity": "another", "leaseDurationSeconds": 15}
    return {"metadata": {"name": "motet-operator", "resourceVersion": "0"}, "spec": spec}


async def test_it_leads_works_and_gives_the_lease_back_when_told_to_stop(tmp_path: Path) -> None:
    async with process(tmp_path) as running:
        await running.until_ready()
        await running.until_leading()
        async with asyncio.timeout(10):
            while not running.server.writes:
                await asyncio.sleep(0.02)
        assert "loraadapters/voice/status" in running.server.writes[0]
        _, text = await running.get(running.admin, "/debug/keys?namespace=speech")
        page = json.loads(text)
        assert (page["leads"], page["keys"][0]["name"]) == (True, "llama")
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(running.task, 10)
        assert running.server.holders[0].startswith(f"{socket.gethostname()}_")
        assert running.server.holders[-1] == ""
        assert await running.get(running.health, "/livez") == (0, "")


async def test_a_standby_is_ready_and_writes_nothing_until_it_leads(tmp_path: Path) -> None:
    async with process(tmp_path, held_by_another()) as running:
        await running.until_ready()
        assert "motet_operator_leader 0.0" in (await running.get(running.metrics, "/metrics"))[1]
        _, text = await running.get(running.admin, "/debug/keys")
        page = json.loads(text)
        assert (page["leads"], page["keys"][0]["state"]) == (False, "waiting")
        assert (running.server.writes, running.server.holders) == ([], [])
        running.server.lease = held_by_another() | {"spec": {"holderIdentity": ""}}
        await running.until_leading()
        async with asyncio.timeout(10):
            while not running.server.writes:
                await asyncio.sleep(0.02)


async def test_without_a_lease_a_process_leads() -> None:
    leadership = make_leadership(None, api=None, metrics=None)  # type: ignore[arg-type]
    assert leadership.leads()


@pytest.mark.process
async def test_a_watch_that_fails_for_good_ends_the_process_and_gives_the_lease_back(tmp_path: Path) -> None:
    """kopf goes on after whatever it knows; after anything else a new process is the remedy, and the standby works."""
    async with process(tmp_path) as running:
        await running.until_leading()
        await running.server.send("pods", {"type": "ERROR", "object": {"kind": "Status", "code": 500}})
        done, _ = await asyncio.wait([running.task], timeout=10)
        assert done
        error = running.task.exception()
        assert isinstance(error, ExceptionGroup)
        assert error.subgroup(WatchesEndedError) is not None
        assert running.server.holders[-1] == ""
