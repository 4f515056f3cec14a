"""From a source to a pod: asked for, fetched, verified, served by content; and what is known outlives the process."""

from hashlib import sha256
from pathlib import Path

import pytest

from motet_api.identity import ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE
from motet_api.names import ARTIFACTS_PATH, BASES_PATH, BLOBS_PATH, LIVE_PATH, READY_PATH
from motet_api.reasons import AdapterReason
from motet_api.store import ArtifactKind, ArtifactManifest, ArtifactState
from motet_operator.store.sources.contract import SourceError
from tests.operator.store.material import BASE, OTHER_BASE, FakeSources, Folder, adapter, base_model, digest_of
from tests.operator.store.running import Clock, FakeSecrets, request, running

GOOD = adapter()
WEIGHTS = GOOD[ADAPTER_WEIGHTS_FILE]
WEIGHTS_PATH = f"{BLOBS_PATH}/{sha256(WEIGHTS).hexdigest()}"


async def test_an_adapter_is_fetched_verified_and_served(tmp_path: Path) -> None:
    async with running(tmp_path, FakeSources(good=Folder(GOOD | {"README.json": b"{}"}))) as store:
        first = (await store.ask(request())).artifacts[0]
        assert first.state is ArtifactState.RESOLVING
        report = await store.settled(request())
        assert (report.state, report.failure) == (ArtifactState.VERIFIED, None)
        assert report.digest == digest_of(GOOD)
        assert (report.rank, report.target_modules) == (4, ["q_proj", "v_proj"])
        assert report.size_bytes == report.fetched_bytes == sum(map(len, GOOD.values()))
        assert report.revision.startswith("rev-")
        status, headers, body = await store.get(f"{ARTIFACTS_PATH}/{report.digest}")
        manifest = ArtifactManifest.model_validate_json(body)
        assert status == 200
        assert "immutable" in headers["Cache-Control"]
        assert {file.name: file.size for file in manifest.files} == {name: len(data) for name, data in GOOD.items()}
        for file in manifest.files:
            assert (await store.get(f"{BLOBS_PATH}/{file.sha256}"))[2] == GOOD[file.name]


async def test_blobs_are_served_in_ranges_and_only_if_they_are_verified(tmp_path: Path) -> None:
    async with running(tmp_path, FakeSources(good=Folder(GOOD))) as store:
        assert (await store.get(WEIGHTS_PATH))[0] == 404
        await store.settled(request())
        status, headers, body = await store.get(WEIGHTS_PATH, Range="bytes=10-19")
        assert (status, body) == (206, WEIGHTS[10:20])
        assert headers["Content-Range"] == f"bytes 10-19/{len(WEIGHTS)}"
        assert "immutable" in headers["Cache-Control"]
        tag = headers["ETag"]
        assert (await store.get(WEIGHTS_PATH, **{"If-None-Match": tag}))[0] == 304
        assert (await store.get(WEIGHTS_PATH, **{"Range": "bytes=5-", "If-Range": tag}))[2] == WEIGHTS[5:]
        assert (await store.get(WEIGHTS_PATH, Range=f"bytes={len(WEIGHTS)}-"))[0] == 416
        async with store.session.head(store.read_url + WEIGHTS_PATH) as answer:
            assert (answer.status, answer.content_length) == (200, len(WEIGHTS))
        for wrong in (f"{BLOBS_PATH}/{'0' * 64}", f"{BLOBS_PATH}/..%2f..%2fetc", f"{ARTIFACTS_PATH}/sha256:{'0' * 64}"):
            assert (await store.get(wrong))[0] == 404
        assert [(await store.get(path))[0] for path in (LIVE_PATH, READY_PATH)] == [200, 200]


async def test_writes_are_not_served_on_the_reading_port(tmp_path: Path) -> None:
    async with running(tmp_path, FakeSources()) as store:
        for method, path in (("POST", ARTIFACTS_PATH), ("PUT", "/motet/v1/references"), ("PUT", f"{BASES_PATH}/x")):
            async with store.session.request(method, store.read_url + path, json={}) as answer:
                assert answer.status in {404, 405}


async def test_what_is_malformed_is_refused_by_field(tmp_path: Path) -> None:
    async with running(tmp_path, FakeSources()) as store:
        async with store.session.post(store.admin_url + ARTIFACTS_PATH, json={"artifacts": [{}]}) as answer:
            assert (answer.status, "artifacts.0.namespace" in await answer.text()) == (400, True)
        url = f"{store.admin_url}{BASES_PATH}/sha256:{'0' * 64}"
        async with store.session.put(url, json=BASE.to_wire()) as answer:
            assert (answer.status, BASE.digest() in await answer.text()) == (400, True)
        async with store.session.put(store.admin_url + "/motet/v1/references", json={"digests": ["x"]}) as answer:
            assert answer.status == 400


async def test_compatibility_is_per_base_and_rank(tmp_path: Path) -> None:
    async with running(tmp_path, FakeSources(good=Folder(GOOD))) as store:
        fits = request(base_digest=BASE.digest(), max_rank=4)
        answer = await store.ask(fits)
        assert answer.unknown_bases == [BASE.digest()]
        assert (await store.settled(fits)).compatible is None
        assert [await store.put_base(base) for base in (BASE, OTHER_BASE)] == [204, 204]
        report = await store.settled(fits, lambda report: report.compatible is not None)
        assert (report.compatible, report.mismatch) == (True, None)
        # Two bytes an element, four modules, rank four by both sides of each.
        assert report.held_bytes == 2 * 4 * (4 * (16 + 16))
        other = await store.settled(
            request(base_digest=OTHER_BASE.digest()), lambda report: report.compatible is not None
        )
        assert other.mismatch is not None
        assert (other.state, other.compatible) == (ArtifactState.VERIFIED, False)
        assert other.mismatch.reason is AdapterReason.BASE_MISMATCH
        small = (await store.ask(request(base_digest=BASE.digest(), max_rank=2))).artifacts[0]
        assert small.mismatch is not None
        assert small.mismatch.reason is AdapterReason.RANK_TOO_LARGE
        assert (await store.ask(fits)).unknown_bases == []


async def test_a_base_of_many_files(tmp_path: Path) -> None:
    files = base_model()
    noise = {"training.json.bak": b"", "consolidated.safetensors": b"not read"}
    sources = FakeSources(base=Folder(files | noise, passed_over=("pytorch_model.bin", "modeling.py")))
    async with running(tmp_path, sources) as store:
        report = await store.settled(request("base", kind=ArtifactKind.BASE_MODEL))
        assert (report.state, report.digest) == (ArtifactState.VERIFIED, digest_of(files))
        assert (report.rank, report.compatible) == (None, None)
        manifest = ArtifactManifest.model_validate_json((await store.get(f"{ARTIFACTS_PATH}/{report.digest}"))[2])
        assert {file.name for file in manifest.files} == set(files)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"config.json": b"[]"}, AdapterReason.INVALID_CONFIG),
        ({"tokenizer.json": b"<html>"}, AdapterReason.INVALID_CONFIG),
        ({"model.safetensors.index.json": b"{}"}, AdapterReason.INVALID_CONFIG),
        (
            {"model.safetensors.index.json": b'{"weight_map": {"c": "model-3.safetensors"}}'},
            AdapterReason.CORRUPT_WEIGHTS,
        ),
        ({"model-00001-of-00002.safetensors": b"\x80\x04"}, AdapterReason.UNSAFE_FORMAT),
    ],
)
async def test_a_broken_base_is_refused(tmp_path: Path, change: dict[str, bytes], reason: AdapterReason) -> None:
    async with running(tmp_path, FakeSources(base=Folder(base_model() | change))) as store:
        report = await store.settled(request("base", kind=ArtifactKind.BASE_MODEL))
        assert report.failure is not None
        assert report.failure.reason is reason, report.failure


async def test_a_restart_fetches_nothing_again(tmp_path: Path) -> None:
    folder, clock = Folder(GOOD), Clock()
    bad = Folder(GOOD | {ADAPTER_CONFIG_FILE: b"{"})
    sources = FakeSources(good=folder, bad=bad)
    wanted = request(base_digest=BASE.digest())
    async with running(tmp_path, sources, clock=clock) as store:
        await store.put_base(BASE)
        before = await store.settled(wanted, lambda report: report.compatible is not None)
        failed = await store.settled(request("bad"))
    async with running(tmp_path, sources, clock=clock) as store:
        answer = await store.ask(wanted, request(digest=digest_of(GOOD)), request("bad"))
        assert answer.artifacts[0] == before
        assert answer.artifacts[1].state is ArtifactState.VERIFIED
        assert answer.artifacts[2] == failed
        assert answer.unknown_bases == []
        assert (await store.get(WEIGHTS_PATH))[2] == WEIGHTS
    assert (folder.lists, bad.lists) == (1, 1)


async def test_what_the_disk_lost_is_fetched_anew_and_must_be_what_it_was(tmp_path: Path) -> None:
    folder = Folder(GOOD)
    sources = FakeSources(good=folder)
    pinned = request(digest=digest_of(GOOD))
    for disk in ("first", "second"):
        async with running(tmp_path / disk, sources) as store:
            assert (await store.settled(pinned)).state is ArtifactState.VERIFIED
    folder.files = adapter(seed=1)
    async with running(tmp_path / "third", sources) as store:
        report = await store.settled(pinned)
        assert report.failure is not None
        assert report.failure.reason is AdapterReason.DIGEST_MISMATCH
        assert (await store.get(WEIGHTS_PATH))[0] == 404
        # Whoever pins nothing gets what is there.
        assert (await store.settled(request())).digest == digest_of(folder.files)


async def test_a_source_without_a_digest_is_asked_again_later_and_fetched_only_if_it_changed(tmp_path: Path) -> None:
    folder, clock = Folder(GOOD), Clock()
    async with running(tmp_path, FakeSources(good=folder), clock=clock, fresh_seconds=600) as store:
        await store.settled(request())
        clock.now += 601
        assert (await store.settled(request())).digest == digest_of(GOOD)
        assert (folder.lists, len(folder.reads)) == (2, 2)
        folder.files = adapter(seed=1)
        assert (await store.ask(request())).artifacts[0].digest == digest_of(GOOD)
        clock.now += 601
        assert (await store.settled(request())).digest == digest_of(folder.files)
        assert (await store.ask(request(digest=digest_of(GOOD)))).artifacts[0].state is ArtifactState.VERIFIED


async def test_credentials_of_one_namespace_open_nothing_to_another(tmp_path: Path) -> None:
    folder = Folder(GOOD, secret=b"s3cret")
    secrets = FakeSecrets({("team-a", "hub"): {"token": b"s3cret"}, ("team-c", "hub"): {"token": b"wrong"}})
    async with running(tmp_path, FakeSources(good=folder), secrets=secrets) as store:
        assert (await store.settled(request(secret_name="hub"))).state is ArtifactState.VERIFIED
        for other, reason in (
            (request(namespace="team-b"), AdapterReason.SOURCE_FORBIDDEN),
            (request(namespace="team-b", digest=digest_of(GOOD)), AdapterReason.SOURCE_FORBIDDEN),
            (request(namespace="team-a"), AdapterReason.SOURCE_FORBIDDEN),
            (request(namespace="team-b", secret_name="hub"), AdapterReason.SECRET_NOT_FOUND),
            (request(namespace="team-c", secret_name="hub"), AdapterReason.SOURCE_FORBIDDEN),
        ):
            report = await store.settled(other)
            assert report.failure is not None, other
            assert report.failure.reason is reason, other
        secrets.secrets["team-d", "own"] = {"token": b"s3cret"}
        assert (await store.settled(request(namespace="team-d", secret_name="own"))).state is ArtifactState.VERIFIED
        assert len(store.store.blobs.stats()) == 2
    records = b"".join(path.read_bytes() for path in tmp_path.rglob("*.json"))
    assert b"s3cret" not in records


async def test_transient_failures_are_tried_again_with_back_off(tmp_path: Path) -> None:
    clock = Clock()
    folder = Folder(GOOD, error=SourceError(AdapterReason.FETCH_FAILED, "the source answered 503"))
    async with running(tmp_path, FakeSources(good=folder), clock=clock) as store:
        report = await store.settled(request())
        assert report.failure is not None
        assert report.failure.reason is AdapterReason.FETCH_FAILED
        store.store.pulls.retry_due()
        assert (await store.settled(request())).failure is not None
        assert folder.lists == 1
        folder.error = None
        clock.now += 7
        store.store.pulls.retry_due()
        await store.settled(request(), lambda report: report.state is ArtifactState.VERIFIED)


async def test_permanent_failures_are_tried_again_daily_or_when_the_request_changes(tmp_path: Path) -> None:
    clock = Clock()
    folder = Folder({ADAPTER_CONFIG_FILE: GOOD[ADAPTER_CONFIG_FILE]}, passed_over=("adapter_model.bin",))
    async with running(tmp_path, FakeSources(good=folder), clock=clock) as store:
        report = await store.settled(request())
        assert report.failure is not None
        assert report.failure.reason is AdapterReason.UNSAFE_FORMAT
        assert "adapter_model.bin" in report.failure.message
        folder.files, folder.passed_over = GOOD, ()
        clock.now += 3600
        store.store.pulls.retry_due()
        assert (await store.settled(request())).failure is not None
        assert (await store.settled(request(revision="main"))).state is ArtifactState.VERIFIED
        clock.now += 86_400
        await store.ask(request())
        store.store.pulls.retry_due()
        await store.settled(request(), lambda report: report.state is ArtifactState.VERIFIED)
