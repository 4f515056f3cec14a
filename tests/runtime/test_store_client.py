"""What comes from the store: whole, by digest, gone on from where a connection broke, and no byte believed."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from motet_api.identity import AdapterId, Digest
from motet_api.reasons import AdapterReason
from motet_api.store import ArtifactFile
from motet_api.wire import DesiredAdapter
from motet_runtime.adapters.sources import files_of
from motet_runtime.errors import AdapterError
from motet_runtime.store import client as client_module
from motet_runtime.store.client import StoreClient, store_session
from tests.runtime.store_server import FakeStore, serving

WEIGHTS = bytes(range(256)) * 40
FILES = {"adapter_config.json": b"{}", "adapter_model.safetensors": WEIGHTS}
BLOB = hashlib.sha256(WEIGHTS).hexdigest()
FILE = ArtifactFile(name="adapter_model.safetensors", sha256=BLOB, size=len(WEIGHTS))


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_PAUSE_SECONDS", 0.0)


async def fetch(store: FakeStore, folder: Path, file: ArtifactFile = FILE) -> None:
    async with store_session() as session:
        await StoreClient(session, store.url).fetch(file, folder)


async def manifest_refusal(store: FakeStore, digest: Digest) -> AdapterError:
    async with store_session() as session:
        with pytest.raises(AdapterError) as refused:
            await StoreClient(session, store.url).manifest(digest)
    return refused.value


async def test_a_broken_connection_is_gone_on_from(tmp_path: Path) -> None:
    async with serving(FakeStore()) as store:
        store.add(FILES)
        store.cuts[BLOB] = 4000
        await fetch(store, tmp_path)
        assert [begin for _, begin in store.asked] == [0, 4000, 8000]
    assert [path.name for path in tmp_path.iterdir()] == [FILE.name]
    assert (tmp_path / FILE.name).read_bytes() == WEIGHTS


async def test_what_an_earlier_attempt_left_is_not_fetched_again(tmp_path: Path) -> None:
    (tmp_path / f".{FILE.name}.part").write_bytes(WEIGHTS[:5000])
    async with serving(FakeStore()) as store:
        store.add(FILES)
        await fetch(store, tmp_path)
        assert store.asked == [(BLOB, 5000)]
    assert (tmp_path / FILE.name).read_bytes() == WEIGHTS


async def test_a_store_that_serves_no_ranges_is_asked_for_all_of_it(tmp_path: Path) -> None:
    (tmp_path / f".{FILE.name}.part").write_bytes(WEIGHTS[:5000])
    async with serving(FakeStore()) as store:
        store.add(FILES)
        store.ranges = False
        await fetch(store, tmp_path)
    assert (tmp_path / FILE.name).read_bytes() == WEIGHTS


async def test_a_file_without_bytes_is_a_file(tmp_path: Path) -> None:
    empty = ArtifactFile(name="empty", sha256=hashlib.sha256(b"").hexdigest(), size=0)
    async with serving(FakeStore()) as store:
        await fetch(store, tmp_path, empty)
        assert store.asked == []
    assert (tmp_path / "empty").read_bytes() == b""


async def test_a_connection_that_brings_nothing_is_given_up(tmp_path: Path) -> None:
    async with serving(FakeStore()) as store:
        store.add(FILES)
        store.cuts[BLOB] = 0
        with pytest.raises(AdapterError, match="0 of 10240 bytes") as refused:
            await fetch(store, tmp_path)
        assert len(store.asked) == client_module.ATTEMPTS
    assert refused.value.reason is AdapterReason.FETCH_FAILED


async def test_a_peer_that_only_drips_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_LEAST_SECONDS", 0.2)
    async with serving(FakeStore()) as store:
        store.add(FILES)
        store.cuts[BLOB] = 1
        with pytest.raises(AdapterError, match="bytes have come in 0 s") as refused:
            await fetch(store, tmp_path)
    assert refused.value.reason is AdapterReason.FETCH_FAILED


@pytest.mark.parametrize("served", [WEIGHTS[:-1] + b"!", WEIGHTS + b"!"], ids=["other bytes", "more bytes"])
async def test_other_bytes_than_the_digest_names_are_refused_and_not_kept(tmp_path: Path, served: bytes) -> None:
    async with serving(FakeStore()) as store:
        store.add(FILES)
        store.blobs[BLOB] = served
        with pytest.raises(AdapterError) as refused:
            await fetch(store, tmp_path)
        assert refused.value.reason is AdapterReason.FETCH_FAILED
        assert not (tmp_path / FILE.name).exists()
        store.blobs[BLOB] = WEIGHTS
        await fetch(store, tmp_path)
    assert (tmp_path / FILE.name).read_bytes() == WEIGHTS


async def test_a_manifest_is_what_its_digest_was_computed_from() -> None:
    async with serving(FakeStore()) as store:
        digest = store.add(FILES)
        async with store_session() as session:
            manifest = await StoreClient(session, store.url + "/").manifest(digest)
        assert {file.name: file.size for file in manifest.files} == {name: len(data) for name, data in FILES.items()}


MANIFESTS: dict[str, tuple[Callable[[FakeStore, Digest], None], AdapterReason]] = {
    "unknown": (lambda store, digest: store.manifests.clear(), AdapterReason.SOURCE_NOT_FOUND),
    "a fault": (lambda store, _: setattr(store, "status", 500), AdapterReason.FETCH_FAILED),
    "a redirect": (lambda store, _: setattr(store, "status", 302), AdapterReason.FETCH_FAILED),
    "no JSON": (lambda store, digest: store.manifests.update({digest: b"<html>"}), AdapterReason.FETCH_FAILED),
    "without end": (
        lambda store, digest: store.manifests.update({digest: b" " * (client_module.MAX_MANIFEST_BYTES + 1)}),
        AdapterReason.FETCH_FAILED,
    ),
    "another file": (
        lambda store, digest: store.manifests[digest]["files"][0].update(sha256="0" * 64),
        AdapterReason.DIGEST_MISMATCH,
    ),
    "a path": (
        lambda store, digest: store.manifests[digest]["files"][0].update(name="../../etc/passwd"),
        AdapterReason.FETCH_FAILED,
    ),
}


@pytest.mark.parametrize(("change", "reason"), MANIFESTS.values(), ids=MANIFESTS)
async def test_a_manifest_that_is_none_is_refused(
    change: Callable[[FakeStore, Digest], None], reason: AdapterReason
) -> None:
    async with serving(FakeStore()) as store:
        digest = store.add(FILES)
        change(store, digest)
        assert (await manifest_refusal(store, digest)).reason is reason


async def test_a_hidden_file_is_refused_though_the_digest_covers_it() -> None:
    async with serving(FakeStore()) as store:
        digest = store.add({**FILES, ".complete": b"x"})
        assert (await manifest_refusal(store, digest)).reason is AdapterReason.DIGEST_MISMATCH


async def test_a_store_that_is_away_is_a_failure_that_is_tried_again(tmp_path: Path) -> None:
    store = FakeStore()
    store.url = "http://127.0.0.1:1"
    refused = await manifest_refusal(store, Digest("sha256:" + "0" * 64))
    assert refused.reason is AdapterReason.FETCH_FAILED
    assert refused.reason.transient
    with pytest.raises(AdapterError, match="0 of 10240"):
        await fetch(store, tmp_path)


def wanted(digest: Digest | None) -> DesiredAdapter:
    return DesiredAdapter(id=AdapterId("a@v1"), uri="s3://bucket/a", digest=digest, from_store=True)


async def test_an_adapter_comes_from_the_store_whatever_its_uri_is() -> None:
    async with serving(FakeStore()) as store:
        digest = store.add(FILES)
        async with files_of(wanted(digest), store.url, Path("/nowhere")) as folder:
            assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
        assert not folder.exists()


async def test_what_is_no_adapter_is_not_fetched_as_one() -> None:
    async with serving(FakeStore()) as store:
        digest = store.add({"config.json": b"{}", "model.safetensors": WEIGHTS})
        with pytest.raises(AdapterError, match="is no adapter") as refused:
            async with files_of(wanted(digest), store.url, Path("/nowhere")):
                pass
        assert refused.value.reason is AdapterReason.UNSUPPORTED
        assert store.asked == []


@pytest.mark.parametrize(("digest", "said"), [(None, "gives no digest"), (Digest("sha256:" + "0" * 64), "no store")])
async def test_a_document_without_store_or_digest_says_so(digest: Digest | None, said: str) -> None:
    with pytest.raises(AdapterError, match=said):
        async with files_of(wanted(digest), "http://store" if digest is None else "", Path("/nowhere")):
            pass
