"""The real store between a source and a real runtime: the base is fetched into a folder, adapters come by digest."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from motet_api.names import ADAPTERS_PATH, ARTIFACTS_PATH, BASE_PATH, BASES_PATH
from motet_api.store import ArtifactKind, ArtifactsAnswer
from motet_api.wire import BaseDescription
from tests.models import make_adapter, make_tiny_llama
from tests.runtime.process import free_ports, runtime_process
from tests.waiting import eventually

pytestmark = pytest.mark.process
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


@contextmanager
def store_process(folder: Path, sources: Path) -> Iterator[tuple[str, str]]:
    """`motet-operator store` on loopback; yields the addresses of its two ports."""
    ports = free_ports(3)
    command = [sys.executable, "-m", "motet_operator", "store", "--data", str(folder / "store"), "--disk", "1Gi"]
    command += ["--secrets", "none", "--file-root", str(sources), "--port", str(ports[0])]
    command += ["--admin-port", str(ports[1]), "--metrics-port", str(ports[2])]
    with (folder / "store.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=ENVIRONMENT)
    read, admin = (f"http://127.0.0.1:{port}" for port in ports[:2])

    def up() -> bool:
        assert process.poll() is None, (folder / "store.log").read_text()
        try:
            call(f"{admin}{ARTIFACTS_PATH}", {"artifacts": []})
        except OSError:
            return False
        return True

    try:
        eventually(up, seconds=30, what="the store's ports")
        yield read, admin
    finally:
        process.terminate()
        process.wait(30)


def call(url: str, body: Any, method: str = "POST") -> bytes:
    request = urllib.request.Request(url, data=json.dumps(body).encode(), method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return bytes(answer.read())


def verified(admin: str, **wanted: Any) -> ArtifactsAnswer:
    """What the store says when it is done with one artifact."""

    def ask() -> ArtifactsAnswer:
        body = {"artifacts": [{"namespace": "default", **wanted}]}
        return ArtifactsAnswer.model_validate_json(call(f"{admin}{ARTIFACTS_PATH}", body))

    answer = eventually(ask, lambda answer: answer.artifacts[0].state in ("Verified", "Failed"), 30)
    assert answer.artifacts[0].state == "Verified", answer
    return answer


def test_base_and_adapters_come_through_the_store(tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    base = make_tiny_llama(sources / "tiny")
    adapter = make_adapter(sources / "topic", base, rank=8, seed=1)
    with store_process(tmp_path, sources) as (read, admin):
        found = verified(admin, kind=ArtifactKind.BASE_MODEL, uri=f"file://{base}").artifacts[0]
        folder = tmp_path / "models" / "tiny"
        command = [sys.executable, "-m", "motet_runtime", "fetch", "--store", read]
        command += ["--artifact", str(found.digest), "--to", str(folder)]
        ended = subprocess.run(command, capture_output=True, env=ENVIRONMENT, timeout=60, check=False)
        assert ended.returncode == 0, ended.stderr.decode()
        assert (folder / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()

        with runtime_process(folder, tmp_path) as runtime:
            eventually(lambda: runtime.ask(BASE_PATH).status == 200, seconds=60)
            described = BaseDescription.model_validate(runtime.ask(BASE_PATH).json())
            call(f"{admin}{BASES_PATH}/{described.digest()}", described.to_wire(), "PUT")
            wanted = {"uri": f"file://{adapter}", "baseDigest": described.digest(), "maxRank": 64}
            report = eventually(
                lambda: verified(admin, **wanted).artifacts[0], lambda report: report.compatible is not None, 30
            )
            assert (report.compatible, report.rank, report.target_modules) == (True, 8, ["q_proj", "v_proj"])

            row = {"id": "topic@v1", "uri": "hf://not/asked", "digest": report.digest, "fromStore": True}
            document = {"adapters": [{**row, "residency": "OnDemand"}], "store": read}
            assert runtime.ask(ADAPTERS_PATH, document, method="PUT", admin=True).status == 200
            eventually(lambda: runtime.ready().status == 200, seconds=60)
            reply = runtime.ask("/v1/completions", {"model": "topic", "prompt": "Where?", "max_tokens": 4})
            assert reply.status == 200, reply.text
            (held,) = runtime.ask(ADAPTERS_PATH).json()["adapters"]
            assert (held["reason"], held["digest"]) == ("Resident", report.digest)
