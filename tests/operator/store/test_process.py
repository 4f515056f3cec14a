"""The real program: killed in the middle of a download it goes on where it was, and serves ranges of the whole."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import socket
from threading import Event, Thread
from typing import Any

import pytest

from motet_api.identity import ADAPTER_WEIGHTS_FILE
from motet_api.names import ARTIFACTS_PATH, BLOBS_PATH
from motet_api.store import ArtifactKind, ArtifactReport, ArtifactsAnswer, ArtifactState
from tests.operator.store.material import adapter, base_model, digest_of, safetensors_bytes, tensors_of
from tests.waiting import eventually

pytestmark = pytest.mark.process

WEIGHTS = safetensors_bytes(tensors_of(width=1 << 18))
LARGE = adapter() | {ADAPTER_WEIGHTS_FILE: WEIGHTS}
HALF = 16 << 20


class Origin(ThreadingHTTPServer):
    """Serves the files of `folder`, of the weights only the first half until `rest` is set; notes the ranges."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.rest = Event()
        self.offsets: list[int] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/folder"


class _Handler(BaseHTTPRequestHandler):
    server: Origin
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(send=False)

    def do_GET(self) -> None:
        self._answer(send=True)

    def log_message(self, *args: Any) -> None:
        pass

    def _answer(self, send: bool) -> None:
        data = self.server.files.get(self.path.rpartition("/")[2])
        if data is None:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        offset = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if offset else 200)
        if offset:
            self.send_header("Content-Range", f"bytes {offset}-{len(data) - 1}/{len(data)}")
        self.send_header("ETag", f'"{sha256(data).hexdigest()[:16]}"')
        self.send_header("Content-Length", str(len(data) - offset))
        self.end_headers()
        if not send:
            return
        if data is WEIGHTS:
            self.server.offsets.append(offset)
            if not self.server.rest.is_set():
                self._send(data[offset:HALF])
                self.server.rest.wait(60)
                offset = max(offset, HALF)
        self._send(data[offset:])

    def _send(self, data: bytes) -> None:
        try:
            self.wfile.write(data)
        except OSError:
            self.close_connection = True


@contextmanager
def origin(files: dict[str, bytes]) -> Iterator[Origin]:
    server = Origin(files)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.rest.set()
        server.shutdown()
        server.server_close()
        thread.join()


class Program:
    """`motet-operator store` as a process of its own."""

    def __init__(self, folder: Path, ports: tuple[int, int, int], log: Path) -> None:
        self.read_url, self.admin_url = (f"http://127.0.0.1:{port}" for port in ports[:2])
        words = [
            "store",
            "--data",
            folder / "data",
            "--disk",
            "1Gi",
            "--secrets",
            "none",
            "--policy",
            folder / "policy",
        ]
        words += ["--port", ports[0], "--admin-port", ports[1], "--metrics-port", ports[2]]
        words += ["--file-root", folder / "files"]
        self.metrics_url = f"http://127.0.0.1:{ports[2]}/metrics"
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "motet_operator", *map(str, words)], stdout=out, stderr=out
            )

    def ready(self) -> bool:
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            return False

    def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        request = urllib.request.Request(self.read_url + path, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read()

    def ask(self, uri: str, kind: ArtifactKind = ArtifactKind.ADAPTER) -> ArtifactReport:
        body = json.dumps({"artifacts": [{"kind": kind, "namespace": "team-a", "uri": uri}]}).encode()
        with urllib.request.urlopen(self.admin_url + ARTIFACTS_PATH, data=body, timeout=10) as answer:
            return ArtifactsAnswer.model_validate_json(answer.read()).artifacts[0]

    def end(self, number: signal.Signals) -> int:
        os.kill(self.process.pid, number)
        return self.process.wait(30)


@contextmanager
def program(folder: Path, ports: tuple[int, int, int]) -> Iterator[Program]:
    log = folder / "log"
    running = Program(folder, ports, log)
    try:
        eventually(lambda: running.ready() or running.process.poll() is not None, what=f"store, see {log}")
        assert running.process.poll() is None, log.read_text()
        yield running
    finally:
        if running.process.poll() is None:
            running.end(signal.SIGKILL)


def free_ports() -> tuple[int, int, int]:
    sockets = [socket() for _ in range(3)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports[0], ports[1], ports[2]


def test_killed_in_the_middle_of_a_download_it_goes_on_and_serves_the_whole(tmp_path: Path) -> None:
    (tmp_path / "policy").write_text("privateNetworks: [127.0.0.0/8]\n")
    ports = free_ports()
    with origin(LARGE) as server:
        with program(tmp_path, ports) as store:
            store.ask(server.url)
            eventually(lambda: store.ask(server.url).fetched_bytes, lambda size: size >= HALF // 2)
            assert store.end(signal.SIGKILL) == -signal.SIGKILL
        server.rest.set()
        with program(tmp_path, ports) as store:
            report = eventually(lambda: store.ask(server.url), lambda report: report.state is ArtifactState.VERIFIED)
            assert report.digest == digest_of(LARGE)
            assert server.offsets[0] == 0
            assert server.offsets[-1] >= HALF // 2
            path = f"{BLOBS_PATH}/{sha256(WEIGHTS).hexdigest()}"
            assert store.get(path) == (200, WEIGHTS)
            assert store.get(path, Range="bytes=1000-1999") == (206, WEIGHTS[1000:2000])
            with urllib.request.urlopen(store.metrics_url, timeout=10) as answer:
                metrics = answer.read().decode()
            for line in (
                "motet_store_disk_bytes",
                "motet_store_fetched_bytes_total",
                'motet_store_jobs{state="running"} 0.0',
            ):
                assert line in metrics
            assert 'motet_store_blob_requests_total{code="206"} 1.0' in metrics
            assert store.end(signal.SIGTERM) == 0
        # And once more: nothing is fetched again.
        asked = len(server.offsets)
        with program(tmp_path, ports) as store:
            assert store.ask(server.url).state is ArtifactState.VERIFIED
        assert len(server.offsets) == asked


def test_a_folder_is_a_source_below_its_root_only(tmp_path: Path) -> None:
    (tmp_path / "policy").write_text("{}")
    for folder, files in (("files/base", base_model()), ("elsewhere/adapter", adapter())):
        (tmp_path / folder).mkdir(parents=True)
        for name, data in files.items():
            (tmp_path / folder / name).write_bytes(data)
    (tmp_path / "files" / "link").symlink_to(tmp_path / "elsewhere" / "adapter")
    with program(tmp_path, free_ports()) as store, origin(LARGE) as server:

        def settled(uri: str, kind: ArtifactKind = ArtifactKind.ADAPTER) -> ArtifactReport:
            done = {ArtifactState.VERIFIED, ArtifactState.FAILED}
            return eventually(lambda: store.ask(uri, kind), lambda report: report.state in done)

        base = settled(f"file://{tmp_path}/files/base", ArtifactKind.BASE_MODEL)
        assert (base.state, base.digest) == (ArtifactState.VERIFIED, digest_of(base_model()))
        for uri in (f"file://{tmp_path}/elsewhere/adapter", f"file://{tmp_path}/files/link", server.url):
            report = settled(uri)
            assert report.failure is not None, uri
            assert report.failure.reason == "SourceNotAllowed", report.failure
        with pytest.raises(urllib.error.HTTPError, match="404"):
            store.get(f"{BLOBS_PATH}/{'0' * 64}")


def test_a_broken_policy_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "policy").write_text("default: {allowed: []}")
    running = Program(tmp_path, free_ports(), tmp_path / "log")
    assert running.process.wait(60) != 0
    assert "default.allowed" in (tmp_path / "log").read_text()
