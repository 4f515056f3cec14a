"""A real runtime as a process of its own, on loopback, with a tiny random model."""

import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPMessage
from pathlib import Path
from typing import Any

from motet_api.names import ADAPTERS_PATH
from tests.waiting import eventually


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer."""

    status: int
    headers: HTTPMessage
    text: str

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.text)


@dataclass(frozen=True, slots=True)
class RuntimeProcess:
    """The process and its two ports."""

    process: subprocess.Popen[bytes]
    port: int
    admin_port: int
    log: Path

    @property
    def url(self) -> str:
        """The serving port's URL."""
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, body: Any = None, *, method: str | None = None, admin: bool = False) -> Reply:
        """One request; a body that is no bytes goes as JSON."""
        port = self.admin_port if admin else self.port
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=data, method=method)
        request.add_header("content-type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return Reply(answer.status, answer.headers, answer.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, error.headers, error.read().decode())

    def want(self, **folders: Path | str) -> None:
        """Send the desired document: `name_version=folder`."""
        rows = [
            {"id": name.replace("_", "@"), "uri": f"file://{folder}" if isinstance(folder, Path) else folder}
            for name, folder in folders.items()
        ]
        assert self.ask(ADAPTERS_PATH, {"adapters": rows}, method="PUT", admin=True).status == 200

    def reasons(self) -> dict[str, str]:
        """Reason by adapter id."""
        return {row["id"]: row["reason"] for row in self.ask(ADAPTERS_PATH).json()["adapters"]}

    def metric(self, name: str) -> float:
        """A sample's value, by its name with labels as they are written."""
        lines = self.ask("/metrics").text.splitlines()
        return float(next(line.rpartition(" ")[2] for line in lines if line.startswith(name + " ")))

    def settled(self) -> None:
        """Wait until nobody holds anything: no request in flight, no sequence, no block."""
        eventually(lambda: self.ask("/motet/v1/drain", admin=True).json()["inFlight"], lambda count: count == 0, 10)
        held = ('motet_runtime_kv_blocks{use="held"}', "vllm:num_requests_running", "vllm:num_requests_waiting")
        eventually(lambda: [self.metric(name) for name in held], lambda values: values == [0.0] * 3, 10)

    def ready(self) -> Reply:
        """What the readiness probe gets."""
        return self.ask("/readyz", admin=True)


@contextmanager
def runtime_process(model: Path, tmp_path: Path, *options: str) -> Iterator[RuntimeProcess]:
    """Start a runtime; its listeners answer when this yields, its base may still be loading."""
    ports = free_ports(2)
    log = tmp_path / "runtime.log"
    command = [sys.executable, "-m", "motet_runtime", "serve", "--model", str(model), "--host", "127.0.0.1"]
    command += ["--port", str(ports[0]), "--admin-port", str(ports[1]), "--pod-name", "pod-0", "--threads", "1"]
    command += ["--adapter-cache", str(tmp_path / "adapter-cache")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with log.open("wb") as out:
        process = subprocess.Popen([*command, *options], stdout=out, stderr=out, env=environment)
    runtime = RuntimeProcess(process, ports[0], ports[1], log)

    def listening() -> bool:
        try:
            return runtime.ask("/livez", admin=True).status == 200
        except OSError:
            assert process.poll() is None, log.read_text()
            return False

    try:
        eventually(listening, seconds=30, what="the runtime's listeners")
        yield runtime
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def free_ports(count: int) -> list[int]:
    """Ports on which nobody listens just now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
