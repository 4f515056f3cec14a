"""`motet-runtime fetch`: a folder that is complete or says that it is not, whoever fetches into it, however often."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from motet_api.identity import Digest
from motet_api.store import ArtifactKind
from motet_runtime import fetch as fetch_module
from motet_runtime.errors import AdapterError, FolderError
from motet_runtime.fetch import run_fetch
from motet_runtime.settings import FetchSettings
from motet_runtime.store import folder as folder_module
from motet_runtime.store.client import StoreClient, store_session
from motet_runtime.store.folder import fill, is_complete, locked
from tests.runtime.store_server import FakeStore, serving, store_thread
from tests.waiting import eventually

FILES = {"config.json": b"{}", **{f"model-0000{n}.safetensors": bytes([n]) * 5000 for n in range(6)}}
OTHER = Digest("sha256:" + "0" * 64)


async def filled(store: FakeStore, folder: Path, digest: Digest) -> None:
    with locked(folder):
        async with store_session() as session:
            await fill(folder, digest, StoreClient(session, store.url))


def visible(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


async def test_all_files_are_brought_and_nothing_twice(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "one"
    async with serving(FakeStore()) as store:
        digest = store.add(FILES, ArtifactKind.BASE_MODEL)
        await filled(store, folder, digest)
        assert visible(folder) == FILES
        assert (folder / ".complete").read_text() == f"{digest}\n"
        await filled(store, folder, digest)
        assert len(store.asked) == len(FILES)
    assert is_complete(folder, digest)


async def test_a_file_that_cannot_be_brought_leaves_the_others_and_no_mark(tmp_path: Path) -> None:
    async with serving(FakeStore()) as store:
        digest = store.add(FILES, ArtifactKind.BASE_MODEL)
        broken = next(iter(store.blobs))
        good, store.blobs[broken] = store.blobs[broken], b"xx"
        with pytest.raises(AdapterError):
            await filled(store, tmp_path, digest)
        assert len(visible(tmp_path)) == len(FILES) - 1
        assert not is_complete(tmp_path, digest)
        store.asked.clear()
        store.blobs[broken] = good
        await filled(store, tmp_path, digest)
        assert [sha256 for sha256, _ in store.asked] == [broken]
    assert visible(tmp_path) == FILES


async def test_a_folder_with_something_else_in_it_is_not_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(FakeStore()) as store:
        digest = store.add(FILES, ArtifactKind.BASE_MODEL)
        (tmp_path / "model.safetensors").write_bytes(b"of another")
        with pytest.raises(FolderError, match=r"model\.safetensors.*give an empty folder"):
            await filled(store, tmp_path, digest)
        (tmp_path / "model.safetensors").unlink()
        monkeypatch.setattr(folder_module.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
        with pytest.raises(FolderError, match="room for 1000 of 30002 bytes: make room for 29002 more"):
            await filled(store, tmp_path, digest)
        assert store.asked == []
    (tmp_path / ".complete").write_text(f"{OTHER}\n")
    with pytest.raises(FolderError, match=f"holds {OTHER}: give another folder"):
        is_complete(tmp_path, digest)


def test_whoever_comes_second_waits_and_then_finds_everything(tmp_path: Path) -> None:
    with store_thread() as (store, call):
        digest = store.add(FILES, ArtifactKind.BASE_MODEL)
        store.hold = asyncio.Event()
        settings = FetchSettings(store.url, digest, tmp_path, patience_seconds=0)
        codes: list[int] = []
        threads = [threading.Thread(target=lambda: codes.append(run_fetch(settings))) for _ in range(3)]
        for thread in threads:
            thread.start()
        eventually(lambda: len(store.asked), lambda count: count == 4)
        call(store.hold.set)
        for thread in threads:
            thread.join()
        assert codes == [0, 0, 0]
        assert len(store.asked) == len(FILES)
    assert visible(tmp_path) == FILES


def lie(store: FakeStore) -> None:
    (manifest,) = store.manifests.values()
    manifest["files"].pop()


FAILURES: dict[str, tuple[Callable[[FakeStore], None], str]] = {
    "the store is away": (lambda store: setattr(store, "url", "http://127.0.0.1:1"), "could not be fetched"),
    "it has no such artifact": (lambda store: store.manifests.clear(), "404"),
    "it lies": (lie, "not those of the digest"),
}


@pytest.mark.parametrize(("change", "said"), FAILURES.values(), ids=FAILURES)
def test_what_cannot_be_fetched_is_said_and_is_no_success(
    tmp_path: Path, change: Callable[[FakeStore], None], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with store_thread() as (store, _), caplog.at_level(logging.ERROR):
        digest = store.add(FILES, ArtifactKind.BASE_MODEL)
        change(store)
        assert run_fetch(FetchSettings(store.url, digest, tmp_path, patience_seconds=0)) == 1
    assert said in caplog.text
    assert not (tmp_path / ".complete").exists()


def test_a_store_that_comes_back_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_module, "_PAUSE_SECONDS", 0.01)
    with store_thread() as (store, _):
        digest = store.add(FILES, ArtifactKind.BASE_MODEL)
        store.status = 500
        codes: list[int] = []
        settings = FetchSettings(store.url, digest, tmp_path, patience_seconds=30)
        thread = threading.Thread(target=lambda: codes.append(run_fetch(settings)))
        thread.start()
        eventually((tmp_path / ".lock").exists)
        store.status = 200
        thread.join()
        assert codes == [0]


def test_a_store_that_lies_is_not_waited_for(tmp_path: Path) -> None:
    with store_thread() as (store, _):
        digest = store.add(FILES, ArtifactKind.BASE_MODEL)
        lie(store)
        assert run_fetch(FetchSettings(store.url, digest, tmp_path, patience_seconds=600)) == 1


@pytest.mark.process
def test_the_command_survives_being_killed_and_imports_no_torch(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with store_thread() as (store, call):
        digest = store.add(FILES, ArtifactKind.BASE_MODEL)
        folder = tmp_path / "base"
        command = [sys.executable, "-X", "importtime", "-m", "motet_runtime", "fetch", "--store", store.url]
        command += ["--artifact", digest, "--to", str(folder)]
        store.hold = asyncio.Event()
        killed = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
        eventually(lambda: len(store.asked), lambda count: count == 4, 30)
        killed.send_signal(signal.SIGKILL)
        assert killed.wait() != 0
        assert not (folder / ".complete").exists()
        call(store.hold.set)
        ended = subprocess.run(command, stderr=subprocess.PIPE, env=environment, timeout=60, check=False)
        assert ended.returncode == 0, ended.stderr.decode()
        assert visible(folder) == FILES
        modules = {line.rpartition("|")[2].strip() for line in ended.stderr.decode().splitlines()}
        assert "motet_runtime.store.client" in modules
        assert not {"torch", "transformers", "numpy"} & modules
