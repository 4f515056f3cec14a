"""A real runtime that loads adapters from the store, some of them only when somebody asks for them."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from motet_api.identity import Digest
from motet_api.names import ADAPTERS_PATH, BASE_PATH
from motet_api.wire import BaseDescription
from tests.models import make_adapter, make_tiny_llama
from tests.runtime.process import Reply, RuntimeProcess, runtime_process
from tests.runtime.store_server import store_thread
from tests.waiting import eventually

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("material")
    base = make_tiny_llama(folder / "tiny")
    for number in range(3):
        make_adapter(folder / f"a{number}", base, seed=number + 1, rank=8)
    return folder


def want(runtime: RuntimeProcess, store: str, rows: list[tuple[str, Digest, str]]) -> None:
    adapters = [
        {"id": name, "uri": f"s3://bucket/{name}", "digest": digest, "residency": residency, "fromStore": True}
        for name, digest, residency in rows
    ]
    assert runtime.ask(ADAPTERS_PATH, {"adapters": adapters, "store": store}, method="PUT", admin=True).status == 200


def ask(runtime: RuntimeProcess, model: str) -> Reply:
    body = {"model": model, "prompt": "Where is my parcel?", "max_tokens": 8, "temperature": 0, "ignore_eos": True}
    return runtime.ask("/v1/completions", body)


def report(runtime: RuntimeProcess) -> Any:
    return runtime.ask(ADAPTERS_PATH, admin=True).json()


def test_the_first_requests_bring_an_adapter_on_demand_and_all_get_its_answer(material: Path, tmp_path: Path) -> None:
    with store_thread() as (store, call), runtime_process(material / "tiny", tmp_path) as runtime:
        digests = [store.add_folder(material / f"a{number}") for number in range(3)]
        rows = [
            ("a0@v1", digests[0], "Required"),
            ("a1@v1", digests[1], "OnDemand"),
            ("a2@v1", digests[2], "OnDemand"),
        ]
        want(runtime, store.url, rows)
        eventually(lambda: runtime.ready().status == 200, seconds=60)
        assert runtime.reasons() == {"a0@v1": "Resident", "a1@v1": "Standby", "a2@v1": "Standby"}
        used = runtime.metric("motet_runtime_adapter_bytes_used")
        assert 0 < used < report(runtime)["adapterBytes"] == 10240 << 20
        blobs = len(store.asked)

        store.hold = asyncio.Event()
        replies: list[Reply] = []
        asking = [threading.Thread(target=lambda: replies.append(ask(runtime, "a1"))) for _ in range(12)]
        for thread in asking:
            thread.start()
        eventually(lambda: runtime.reasons()["a1@v1"] == "Loading")
        assert ask(runtime, "a0@v1").status == 200, "others are served meanwhile"
        call(store.hold.set)
        for thread in asking:
            thread.join()
        assert [reply.status for reply in replies] == [200] * 12
        assert len(store.asked) == blobs + 2, "loaded once"
        assert len({reply.json()["choices"][0]["text"] for reply in replies}) == 1
        assert runtime.reasons() == {"a0@v1": "Resident", "a1@v1": "Resident", "a2@v1": "Standby"}
        assert runtime.metric("motet_runtime_adapter_bytes_used") == 2 * used

        (lost,) = [file["sha256"] for file in store.manifests[digests[2]]["files"] if "safetensors" in file["name"]]
        store.blobs[lost] = b"something else"
        refused = ask(runtime, "a2@v1")
        assert (refused.status, refused.json()["error"]["code"]) == (503, "adapter_not_ready")
        assert "FetchFailed" in refused.json()["error"]["message"]
        assert refused.headers["Retry-After"]
        assert runtime.ready().status == 200
        runtime.settled()


def test_a_panel_brings_all_its_members(material: Path, tmp_path: Path) -> None:
    with store_thread() as (store, _), runtime_process(material / "tiny", tmp_path) as runtime:
        rows = [(f"a{number}@v1", store.add_folder(material / f"a{number}"), "OnDemand") for number in range(3)]
        want(runtime, store.url, rows)
        eventually(lambda: runtime.ready().status == 200, seconds=60)
        members = [{"model": f"a{number}", "labels": [" yes", " no"]} for number in (0, 1, 2, 1)]
        reply = runtime.ask("/v1/panels", {"input": "Where is my parcel?", "members": members})
        assert reply.status == 200, reply.text
        assert [row["adapter"] for row in reply.json()["data"]] == ["a0@v1", "a1@v1", "a2@v1", "a1@v1"]
        unknown = runtime.ask("/v1/panels", {"input": "x", "members": [*members, {"model": "b"}]})
        assert (unknown.status, unknown.json()["error"]["code"]) == (404, "adapter_not_found")
        runtime.settled()


def test_the_base_is_described_on_both_ports(material: Path, tmp_path: Path) -> None:
    with runtime_process(material / "tiny", tmp_path) as runtime:
        if "baseDigest" not in report(runtime):
            early = runtime.ask(BASE_PATH)
            assert early.status in (200, 503)
        eventually(lambda: runtime.ask(BASE_PATH).status == 200, seconds=60)
        for admin in (False, True):
            described = BaseDescription.model_validate(runtime.ask(BASE_PATH, admin=admin).json())
            assert (described.model, described.hidden_size, described.dtype_bytes) == ("tiny", 64, 4)
            assert described.modules["model.layers.1.mlp.down_proj"] == (64, 128)
            assert len(described.modules) == 14
            assert report(runtime)["baseDigest"] == described.digest()
