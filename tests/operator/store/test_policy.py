"""The installation's policy: sources, signatures made by the real openssl, and a file that changes under the store."""

import base64
import logging
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest
import yaml

from motet_api.identity import SIGNATURE_FILE, manifest_text
from motet_api.reasons import AdapterReason
from motet_api.store import ArtifactState
from motet_operator.store.errors import StoreError
from motet_operator.store.policy_file import PolicyFile
from motet_operator.store.policy_networks import PolicyNetworks
from motet_operator.store.signature import check, read_key
from motet_operator.store.sources.contract import SourceError
from tests.operator.store.material import FakeSources, Folder, adapter
from tests.operator.store.running import Clock, FakeSecrets, request, running

GOOD = adapter()
MANIFEST = manifest_text({name: sha256(data).hexdigest() for name, data in GOOD.items()})


def openssl(*words: str, cwd: Path) -> None:
    subprocess.run(["openssl", *words], cwd=cwd, check=True, capture_output=True, timeout=30)


class Signer:
    """A key pair of openssl's, which signs as its manual says."""

    def __init__(self, folder: Path, kind: str) -> None:
        folder.mkdir()
        self._folder, self._kind = folder, kind
        if kind == "ed25519":
            openssl("genpkey", "-algorithm", "ed25519", "-out", "key.pem", cwd=folder)
        else:
            openssl("ecparam", "-name", kind, "-genkey", "-noout", "-out", "key.pem", cwd=folder)
        openssl("pkey", "-in", "key.pem", "-pubout", "-out", "key.pub", cwd=folder)
        self.public = (folder / "key.pub").read_text()

    def sign(self, text: str) -> str:
        (self._folder / "text").write_text(text)
        if self._kind == "ed25519":
            words = ["pkeyutl", "-sign", "-rawin", "-inkey", "key.pem", "-in", "text", "-out", "sig"]
        else:
            words = ["dgst", "-sha256", "-sign", "key.pem", "-out", "sig", "text"]
        openssl(*words, cwd=self._folder)
        return base64.encodebytes((self._folder / "sig").read_bytes()).decode()


@pytest.mark.parametrize("kind", ["ed25519", "prime256v1"])
def test_what_openssl_signs_is_taken_and_anything_else_refused(kind: str, tmp_path: Path) -> None:
    signer, other = Signer(tmp_path / "a", kind), Signer(tmp_path / "b", "ed25519")
    keys = [read_key(other.public), read_key(signer.public)]
    check(signer.sign(MANIFEST), MANIFEST, keys)
    for text, reason in (
        ("", AdapterReason.SIGNATURE_MISSING),
        ("no base64!", AdapterReason.SIGNATURE_INVALID),
        (base64.b64encode(b"x" * 64).decode(), AdapterReason.SIGNATURE_INVALID),
        (signer.sign(MANIFEST + "\n"), AdapterReason.SIGNATURE_INVALID),
    ):
        with pytest.raises(StoreError) as refused:
            check(text, MANIFEST, keys)
        assert refused.value.reason is reason
    with pytest.raises(StoreError):
        check(signer.sign(MANIFEST), MANIFEST, keys[:1])


def test_other_keys_are_refused(tmp_path: Path) -> None:
    for pem in ("nothing", Signer(tmp_path / "p384", "secp384r1").public):
        with pytest.raises(ValueError, match=r"signature\.publicKeys"):
            read_key(pem)


async def test_a_namespace_that_wants_signatures(tmp_path: Path) -> None:
    signer, clock = Signer(tmp_path / "key", "ed25519"), Clock()
    policy = tmp_path / "policy.yaml"
    policy.write_text(yaml.safe_dump({"namespaces": {"strict": {"signature": {"publicKeys": [signer.public]}}}}))
    folder = Folder(dict(GOOD))
    async with running(tmp_path / "data", FakeSources(good=folder), policy=policy, clock=clock) as store:
        strict = request(namespace="strict")
        assert (await store.settled(request())).state is ArtifactState.VERIFIED
        report = await store.settled(strict)
        assert report.failure is not None
        assert report.failure.reason is AdapterReason.SIGNATURE_MISSING
        # A signature that is laid beside the files later is found by itself, and nothing else is fetched again.
        folder.files[SIGNATURE_FILE] = signer.sign("something else").encode()
        clock.now += 700
        await store.settled(
            strict,
            lambda report: report.failure is not None and report.failure.reason is AdapterReason.SIGNATURE_INVALID,
        )
        folder.files[SIGNATURE_FILE] = signer.sign(MANIFEST).encode()
        clock.now += 700
        report = await store.settled(strict, lambda report: report.state is ArtifactState.VERIFIED)
        assert [name for name, _ in folder.reads].count("adapter_model.safetensors") == 1


async def test_a_source_that_is_not_allowed_names_the_owner_and_the_remedy(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("default: {allowedSources: ['https://host/ours-*']}\n")
    sources = FakeSources(good=Folder(GOOD))
    async with running(tmp_path / "data", sources, policy=policy) as store:
        report = (await store.ask(request())).artifacts[0]
        assert report.failure is not None
        assert report.failure.reason is AdapterReason.SOURCE_NOT_ALLOWED
        for word in ("team-a", "https://host/ours-*", "allowedSources", "administrator"):
            assert word in report.failure.message
    assert sources.folders["https://host/good"].lists == 0


async def test_which_s3_endpoints_a_secret_may_name_is_the_namespaces(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    rules = "{allowedSources: ['https://host/*'], s3Endpoints: ['https://minio']}"
    policy.write_text(f"namespaces: {{bound: {rules}}}\n")
    sources = FakeSources(good=Folder(GOOD))
    secrets = FakeSecrets({(namespace, "keys"): {} for namespace in ("bound", "free")})
    async with running(tmp_path / "data", sources, policy=policy, secrets=secrets) as store:
        for namespace, endpoints in (("bound", ("https://minio",)), ("free", ("*",))):
            await store.settled(request(namespace=namespace, secret_name="keys"))
            assert sources.folders["https://host/good"].s3_endpoints == endpoints


async def test_what_policy_refused_is_tried_again_under_another_policy(tmp_path: Path) -> None:
    refused = SourceError(AdapterReason.SOURCE_NOT_ALLOWED, "the endpoint is not allowed")
    folder = Folder(GOOD, error=refused)
    async with running(tmp_path, FakeSources(good=folder)) as store:
        failed = await store.settled(request())
        assert failed.state is ArtifactState.FAILED
        folder.error = None
        store.store.catalogue.drop_failures(AdapterReason.FETCH_FAILED)
        assert (await store.ask(request())).artifacts[0].state is ArtifactState.FAILED
        store.store.catalogue.drop_failures(AdapterReason.SOURCE_NOT_ALLOWED)
        assert (await store.settled(request())).state is ArtifactState.VERIFIED


def test_a_broken_new_policy_leaves_the_old_one_in_force(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("default: {allowedSources: ['hf://ours/*']}\nprivateNetworks: [10.0.0.0/8]\n")
    policy = PolicyFile(path)
    networks = PolicyNetworks(policy)
    assert networks.permits("10.1.2.3")
    for broken in ("default: [", "default: {allowed: []}", "privateNetworks: [here]", "[]"):
        path.write_text(broken)
        with caplog.at_level(logging.ERROR):
            policy.refresh()
        assert policy.broken
        assert str(path) in caplog.text
        assert policy.current.default.allowed_sources == ["hf://ours/*"]
    path.write_text("default: {allowedSources: ['s3://*']}\n")
    policy.refresh()
    assert not policy.broken
    policy.check_source("any", "s3://bucket/path")
    with pytest.raises(StoreError):
        policy.check_source("any", "hf://ours/model")
    with pytest.raises(StoreError, match="write the path that is meant"):
        policy.check_source("any", "s3://bucket/path/../other")
    assert not networks.permits("10.1.2.3")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (b"a: [", "not YAML"),
        (b"other: 1", "other"),
        (b"namespaces: {a: {maxBytes: -1}}", "namespaces.a.maxBytes"),
        (b"default: {signature: {publicKeys: [x]}}", "publicKeys"),
    ],
)
def test_what_is_wrong_with_a_policy_is_said_by_field(tmp_path: Path, text: bytes, where: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=where):
        PolicyFile(path)
