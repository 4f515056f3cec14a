"""What the store keeps, for whom it works first, and what it counts; at the number of adapters that it is made for."""

import asyncio
import time
from hashlib import sha256
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from motet_api.identity import ADAPTER_WEIGHTS_FILE, Digest
from motet_api.names import BLOBS_PATH
from motet_api.reasons import AdapterReason
from motet_api.store import (
    ArtifactFile,
    ArtifactKind,
    ArtifactRequest,
    ArtifactsQuery,
    ArtifactState,
    References,
)
from motet_operator.clients.store_client import StoreClient
from motet_operator.errors import NotFoundError, OperatorError, RefusedError, SilentStoreError, UnavailableError
from motet_operator.store.errors import StoreError
from motet_operator.store.records import Artifact, Facts, Fit, Resolution
from motet_operator.store.secret_reader import KubernetesSecrets, NoSecrets
from motet_operator.store.wanted import Wanted
from tests.operator.store.material import BASE, FakeSources, Folder, adapter, digest_of
from tests.operator.store.running import Clock, request, running

GOOD, OTHER = adapter(), adapter(seed=1)


async def test_nothing_is_deleted_before_the_references_have_come_and_then_what_nobody_names(tmp_path: Path) -> None:
    clock = Clock()
    sources = FakeSources(good=Folder(GOOD), other=Folder(OTHER))
    async with running(tmp_path, sources, clock=clock, grace_seconds=60, keep_seconds=600) as store:
        for name in ("good", "other"):
            await store.settled(request(name))
        clock.now += 10_000
        assert store.store.catalogue.collect().artifacts == ()
        await store.put_references(digest_of(GOOD))
        assert store.store.catalogue.collect().artifacts == (digest_of(OTHER),)
        assert set(store.store.blobs.stats()) == {sha256(data).hexdigest() for data in GOOD.values()}
        assert (await store.get(f"{BLOBS_PATH}/{sha256(OTHER[ADAPTER_WEIGHTS_FILE]).hexdigest()}"))[0] == 404
        # What was deleted is fetched anew when somebody wants it.
        assert (await store.settled(request("other"))).state is ArtifactState.VERIFIED
    # The references are the operator's to say again after every start.
    async with running(tmp_path, sources, clock=clock, grace_seconds=60, keep_seconds=600) as store:
        clock.now += 10_000
        assert store.store.catalogue.collect().blobs == ()
        assert len(store.store.catalogue.artifacts) == 2


async def test_what_was_found_at_a_revision_is_not_fetched_again_when_it_is_asked_for_by_it(tmp_path: Path) -> None:
    folder = Folder(GOOD)
    async with running(tmp_path, FakeSources(good=folder)) as store:
        found = await store.settled(request())
        again = request(revision=found.revision, digest=found.digest)
        (report,) = (await store.ask(again)).artifacts
        assert (report.state, report.revision) == (ArtifactState.VERIFIED, found.revision)
        assert folder.lists == 1


async def test_a_blob_that_is_read_stays(tmp_path: Path) -> None:
    clock = Clock()
    async with running(tmp_path, FakeSources(good=Folder(GOOD)), clock=clock, grace_seconds=0, keep_seconds=0) as store:
        await store.settled(request())
        await store.put_references()
        weights = sha256(GOOD[ADAPTER_WEIGHTS_FILE]).hexdigest()
        clock.now += 100
        with store.store.blobs.using(weights):
            store.store.catalogue.collect()
            assert set(store.store.blobs.stats()) == {weights}
        store.store.catalogue.collect()
        assert store.store.blobs.stats() == {}
        assert store.store.blobs.disk.used == 0


async def test_a_namespace_of_bad_sources_keeps_no_other_waiting(tmp_path: Path) -> None:
    gate = asyncio.Event()
    stuck = {f"stuck{number}": Folder(GOOD, gate=gate) for number in range(200)}
    async with running(tmp_path, FakeSources(good=Folder(GOOD), **stuck), jobs=4, jobs_per_host=100) as store:
        await store.ask(*(request(name, namespace="greedy") for name in stuck))
        assert (await store.settled(request(namespace="modest"))).state is ArtifactState.VERIFIED
        gate.set()


async def test_one_file_that_two_jobs_want_has_one_writer(tmp_path: Path) -> None:
    gate = asyncio.Event()
    folder = Folder(GOOD, gate=gate)
    async with running(tmp_path, FakeSources(good=folder)) as store:
        pinned = request(digest=digest_of(GOOD))
        await store.ask(request(), pinned)
        gate.set()
        for one in (request(), pinned):
            assert (await store.settled(one)).state is ArtifactState.VERIFIED
        assert store.store.blobs.disk.used == sum(map(len, GOOD.values()))


async def test_ten_thousand_known_artifacts_are_answered_from_memory(tmp_path: Path) -> None:
    async with running(tmp_path, FakeSources()) as store:
        await store.put_base(BASE)
        catalogue, base, wanted = store.store.catalogue, BASE.digest(), []
        for number in range(10_000):
            digest = Digest(f"sha256:{number:064x}")
            one = ArtifactRequest(
                namespace=f"n{number % 50}", uri=f"https://host/{number}", digest=digest, base_digest=base, max_rank=64
            )
            file = ArtifactFile(name=ADAPTER_WEIGHTS_FILE, sha256=f"{number:064x}", size=1)
            facts = Facts(rank=16, target_modules=["q_proj"], size_bytes=1)
            artifact = Artifact(
                digest=digest, kind=ArtifactKind.ADAPTER, files=[file], facts=facts, fits={base: Fit(held_bytes=1)}
            )
            catalogue._put_artifact(artifact, time.time())
            catalogue._put_resolution(
                Resolution(wanted=Wanted.of(one), digest=digest, revision="r", files=[], at=time.time())
            )
            wanted.append(one)
        began = time.process_time()
        answer = await store.ask(*wanted)
        spent = time.process_time() - began
    assert all(report.compatible for report in answer.artifacts)
    # The client's half is in it too: some tens of milliseconds for a thousand.
    assert spent / 10 < 0.1


async def test_the_operators_client_is_understood(tmp_path: Path) -> None:
    async with running(tmp_path, FakeSources(good=Folder(GOOD))) as store:
        client = StoreClient(store.session, store.admin_url)
        await client.put_base(BASE.digest(), BASE)
        await client.put_references(References(digests=[digest_of(GOOD)]))
        await store.settled(request(base_digest=BASE.digest()), lambda report: report.compatible is not None)
        answer = await client.query(ArtifactsQuery(artifacts=[request(base_digest=BASE.digest()), request("none")]))
        assert [report.compatible for report in answer.artifacts] == [True, None]
        with pytest.raises(SilentStoreError, match="400"):
            await client.put_base(digest_of(GOOD), BASE)


async def test_what_happens_is_counted(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    sources = FakeSources(good=Folder(GOOD), bad=Folder({"adapter_config.json": b"{}"}))
    async with running(tmp_path, sources, registry=registry) as store:
        await store.settled(request("good"))
        await store.settled(request("bad"))
        await store.get(f"{BLOBS_PATH}/{sha256(GOOD[ADAPTER_WEIGHTS_FILE]).hexdigest()}")
        await store.get(f"{BLOBS_PATH}/{'0' * 64}")

        def value(name: str, **labels: str) -> float | None:
            return registry.get_sample_value(f"motet_store_{name}", labels)

        assert value("jobs_ended_total", result="verified") == value("jobs_ended_total", result="failed") == 1
        assert value("failures_total", reason="SourceNotFound") == 1
        assert value("fetched_bytes_total") == value("disk_bytes") == sum(map(len, GOOD.values()))
        assert value("disk_limit_bytes") == 1 << 30
        assert value("blob_requests_total", code="200") == value("blob_requests_total", code="404") == 1
        assert value("jobs", state="running") == value("policy_refused") == 0


async def test_an_unforeseen_fault_is_logged_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, FakeSources(good=Folder(GOOD))) as store:

        def broken(*arguments: object) -> None:
            raise RuntimeError("nobody has thought of this")

        monkeypatch.setattr(store.store.catalogue, "add", broken)
        report = await store.settled(request())
        assert report.failure is not None
        assert report.failure.reason is AdapterReason.LOAD_FAILED
        assert "nobody has thought of this" in caplog.text
        assert "nobody has thought of this" not in report.failure.message


LABELS = {"motet.dev/source-credentials": "true"}
MEANT: dict[str, object] = {"metadata": {"labels": LABELS}, "type": "Opaque"}


class FakeApi:
    """One path of the API server."""

    def __init__(self, answer: dict[str, object] | OperatorError) -> None:
        self._answer = answer
        self.paths: list[str] = []

    async def read(self, path: str) -> dict[str, object]:
        self.paths.append(path)
        if isinstance(self._answer, OperatorError):
            raise self._answer
        return self._answer


async def test_secrets_are_read_by_name() -> None:
    api = FakeApi({**MEANT, "data": {"token": "czNjcmV0"}})
    assert await KubernetesSecrets(api).read("team-a", "hub") == {"token": b"s3cret"}
    assert api.paths == ["/api/v1/namespaces/team-a/secrets/hub"]
    assert await KubernetesSecrets(FakeApi(MEANT)).read("team-a", "empty") == {}


@pytest.mark.parametrize(
    ("kind", "labels", "said"),
    [
        ("kubernetes.io/service-account-token", LABELS, "has type kubernetes.io/service-account-token"),
        ("kubernetes.io/tls", LABELS, "make one of type Opaque"),
        ("Opaque", None, "kubectl label secret hub -n team-a motet.dev/source-credentials=true"),
        ("Opaque", {"motet.dev/source-credentials": "false"}, "kubectl label"),
        ("kubernetes.io/dockerconfigjson", {}, "kubectl label"),
    ],
)
async def test_a_secret_that_is_for_something_else_is_not_used(
    kind: str, labels: dict[str, str] | None, said: str
) -> None:
    secret = {"metadata": {"labels": labels}, "type": kind, "data": {"token": "czNjcmV0"}}
    with pytest.raises(StoreError, match=said) as refused:
        await KubernetesSecrets(FakeApi(secret)).read("team-a", "hub")
    assert refused.value.reason is AdapterReason.SECRET_NOT_FOUND
    assert "s3cret" not in refused.value.message


@pytest.mark.parametrize("kind", ["Opaque", "kubernetes.io/basic-auth", "kubernetes.io/dockerconfigjson"])
async def test_types_of_secrets_that_are_used(kind: str) -> None:
    secret = {**MEANT, "type": kind, "data": {"password": "cHc="}}
    assert await KubernetesSecrets(FakeApi(secret)).read("team-a", "hub") == {"password": b"pw"}


@pytest.mark.parametrize(
    ("error", "reason", "said"),
    [
        (NotFoundError("404"), AdapterReason.SECRET_NOT_FOUND, "namespace team-a has no Secret hub"),
        (RefusedError("403"), AdapterReason.SECRET_NOT_FOUND, "store.secretNamespaces"),
        (UnavailableError("500"), AdapterReason.FETCH_FAILED, "cannot be read now"),
    ],
)
async def test_why_a_secret_cannot_be_read(error: OperatorError, reason: AdapterReason, said: str) -> None:
    with pytest.raises(StoreError, match=said) as failed:
        await KubernetesSecrets(FakeApi(error)).read("team-a", "hub")
    assert (failed.value.reason, failed.value.reason.transient) == (reason, True)


async def test_without_a_cluster_there_are_no_secrets() -> None:
    with pytest.raises(StoreError, match="without Kubernetes"):
        await NoSecrets().read("team-a", "hub")
