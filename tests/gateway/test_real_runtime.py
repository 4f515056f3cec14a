"""The gateway in front of a real runtime pod with a small random model; asked by HTTP and by lorax-client itself."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml

from motet_api.errors import ErrorCode
from motet_api.names import ADAPTER_VERSION_HEADER, ADAPTERS_PATH, POD_HEADER
from motet_gateway.main import parse_arguments, serve
from tests.gateway.front_door import until

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

ROOT = Path(__file__).parents[2]
VERSIONS = ("voice@v1", "voice@v2")


@dataclass(frozen=True, slots=True)
class Setting:
    """Addresses of a gateway and of the pod behind it."""

    gateway: str
    pod: str
    client: aiohttp.ClientSession

    async def complete(self, url: str, model: str, **more: Any) -> tuple[int, Any, dict[str, str]]:
        body = {"model": model, "prompt": "Where is my parcel?", "max_tokens": 8, "temperature": 0} | more
        async with self.client.post(f"{url}/v1/completions", json=body) as answer:
            text = await answer.text()
            headers = {name.lower(): value for name, value in answer.headers.items()}
            return answer.status, text if more.get("stream") else json.loads(text), headers


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def runtime(model: Path, log: Path) -> AsyncIterator[tuple[str, str]]:
    """`motet-runtime serve` in its own process; its serving and admin address."""
    port, admin = free_port(), free_port()
    words = ["--model", str(model), "--model-name", "tiny", "--pod-name", "real", "--host", "127.0.0.1"]
    words += ["--port", str(port), "--admin-port", str(admin), "--drain-grace-seconds", "0", "--threads", "1"]
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "motet_runtime", "serve", *words),
            env=os.environ | {"PYTHONPATH": f"{ROOT}/api/src:{ROOT}/runtime/src"},
            stdout=out,
            stderr=out,
        )
    try:
        yield f"127.0.0.1:{port}", f"127.0.0.1:{admin}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def answers(client: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with client.get(url) as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def setting(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Setting]:
    """A pod that holds two versions, and a gateway in front of it."""
    from tests.models import make_adapter, make_tiny_llama

    folder = tmp_path_factory.mktemp("real")
    model = make_tiny_llama(folder / "model")
    paths = {name: make_adapter(folder / name, model, seed=seed) for seed, name in enumerate(VERSIONS)}
    async with runtime(model, folder / "runtime.log") as (pod, admin), aiohttp.ClientSession() as client:
        await until(lambda: answers(client, f"http://{admin}/livez"), seconds=60, what="the runtime up")
        desired = {"adapters": [{"id": name, "uri": f"file://{path}"} for name, path in paths.items()]}
        async with client.put(f"http://{admin}{ADAPTERS_PATH}", json=desired) as put:
            assert put.status == 200
        table = {
            "models": [{"name": "tiny", "pods": [{"name": "real", "address": pod}]}],
            "adapters": [
                {
                    "name": "voice",
                    "model": "tiny",
                    "versions": ["v1", "v2", "v3"],
                    "traffic": [{"version": "v1", "weight": 1}],
                }
            ],
        }
        (folder / "table.yaml").write_text(yaml.safe_dump(table))
        port, stop = free_port(), asyncio.Event()
        words = ["serve", "--host", "127.0.0.1", "--port", str(port), "--table", str(folder / "table.yaml")]
        served = asyncio.create_task(serve(parse_arguments([*words, "--grace", "0"]), stop))
        found = Setting(f"http://127.0.0.1:{port}", f"http://{pod}", client)
        await until(lambda: answers(client, f"{found.gateway}/readyz"), what="the gateway up")
        yield found
        stop.set()
        await served


async def test_requests_wait_while_the_pod_loads_and_get_its_answers(setting: Setting) -> None:
    """The pod still loads its base and its adapters here: the gateway holds the request until it can answer."""
    status, body, headers = await setting.complete(setting.gateway, "tiny")
    assert (status, headers[POD_HEADER]) == (200, "real")
    texts = {"tiny": body["choices"][0]["text"]}
    for name in VERSIONS:
        status, body, headers = await setting.complete(setting.gateway, name)
        assert (status, headers[ADAPTER_VERSION_HEADER]) == (200, name.partition("@")[2])
        texts[name] = body["choices"][0]["text"]
        direct = await setting.complete(setting.pod, name)
        assert direct[1]["choices"][0]["text"] == texts[name]
    assert len(set(texts.values())) == 3


async def test_the_split_streams_and_what_is_not_held_is_an_error(setting: Setting) -> None:
    assert (await setting.complete(setting.gateway, "tiny"))[1]["model"] == "tiny"
    status, text, headers = await setting.complete(setting.gateway, "voice", stream=True)
    assert (status, headers[ADAPTER_VERSION_HEADER]) == (200, "v1")
    events = [line for line in text.splitlines() if line.startswith("data:")]
    assert events[-1] == "data: [DONE]"
    assert len(events) >= 3
    status, body, _ = await setting.complete(setting.gateway, "voice@v3")
    assert (status, body["error"]["code"]) == (503, ErrorCode.ADAPTER_NOT_READY)


async def test_lorax_client_works_unmodified(setting: Setting) -> None:
    """Every way of asking that the client has, from its own environment, gives the pod's own answer."""
    lorax = subprocess.run([str(ROOT / "hack/venv"), "lorax"], capture_output=True, text=True, check=True)
    program = [f"{lorax.stdout.strip()}/bin/python", str(ROOT / "tests/lorax_client_check.py")]
    process = await asyncio.create_subprocess_exec(
        *(*program, setting.gateway, "voice", "x-motet-model=default/tiny"), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    found = json.loads(out)
    for name, model in {"base": "tiny", "adapter": "voice@v1"}.items():
        same = {"prompt": found["prompt"], "max_tokens": found["tokens"]}
        assert (await setting.complete(setting.pod, model, **same))[1]["choices"][0]["text"] == found[name]
