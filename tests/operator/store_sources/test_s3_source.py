"""`s3://` against versitygw, a real S3 server; what its keys and prefixes mean, and what is refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from motet_api.reasons import AdapterReason
from motet_operator.store.sources.contract import SourceChangedError, SourceError, SourceRef
from motet_operator.store.sources.networks import Networks
from motet_operator.store.sources.s3_endpoint import check_endpoint
from motet_operator.store.sources.schemes import Sources
from tests.operator.store_sources.programs import ACCESS_KEY, SECRET_KEY, s3_server
from tests.operator.store_sources.servers import GOOD, WEIGHTS, content, fetch, settings

URI = "s3://adapters/team/churn risk+1"
KEY = "team/churn risk+1"


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("s3")) as address:
        s3 = client(address)
        s3.create_bucket(Bucket="adapters")
        for name, data in {**GOOD, "adapter_model.bin": b"\x80\x04.", "deeper/config.json": b"{}"}.items():
            s3.put_object(Bucket="adapters", Key=f"{KEY}/{name}", Body=data)
        for number in range(1200):
            s3.put_object(Bucket="adapters", Key=f"many/{number:04}.png", Body=b"x")
        for name, data in GOOD.items():
            s3.put_object(Bucket="adapters", Key=f"many/{name}", Body=data)
        s3.close()
        yield f"http://{address}"


def client(address: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=f"http://{address}",
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
    )


def keys(endpoint: str, **changes: bytes) -> dict[str, bytes]:
    given = {"accessKeyId": ACCESS_KEY.encode(), "secretAccessKey": SECRET_KEY.encode() + b"\n"}
    return {**given, "endpoint": endpoint.encode(), **changes}


@pytest.mark.process
@pytest.mark.parametrize("uri", [URI, f"{URI}/", "s3://adapters/many"])
async def test_folder(uri: str, endpoint: str, tmp_path: Path) -> None:
    into = tmp_path / "into"
    into.mkdir()
    async with Sources(settings(tmp_path / "scratch")) as sources:
        listing = await fetch(sources, uri, into, keys(endpoint))
        again = await sources.open_source(uri).list(SourceRef(uri), keys(endpoint))
    assert content(into) == GOOD
    assert again == listing
    assert "deeper/config.json" not in [file.name for file in listing.files]


@pytest.mark.process
async def test_resumed_read_and_change(endpoint: str, tmp_path: Path) -> None:
    s3 = client(endpoint.removeprefix("http://"))
    for name, data in GOOD.items():
        s3.put_object(Bucket="adapters", Key=f"changing/{name}", Body=data)
    uri = "s3://adapters/changing"
    async with Sources(settings(tmp_path / "scratch")) as sources:
        source, ref = sources.open_source(uri), SourceRef(uri)
        listing = await source.list(ref, keys(endpoint))
        weights = listing.files[1]
        rest = b"".join([chunk async for chunk in source.read(ref, listing, weights, 300_001, keys(endpoint))])
        assert rest == WEIGHTS[300_001:]
        s3.put_object(Bucket="adapters", Key=f"changing/{weights.name}", Body=WEIGHTS[::-1])
        s3.close()
        for offset in (0, 300_001):
            with pytest.raises(SourceChangedError):
                await anext(source.read(ref, listing, weights, offset, keys(endpoint)))
        assert (await source.list(ref, keys(endpoint))).revision != listing.revision


@pytest.mark.process
@pytest.mark.parametrize(
    ("uri", "changes", "reason"),
    [
        (URI, {"secretAccessKey": b"wrong"}, AdapterReason.SOURCE_FORBIDDEN),
        (URI, {"accessKeyId": b"nobody"}, AdapterReason.SOURCE_FORBIDDEN),
        (URI, {"accessKeyId": b"", "secretAccessKey": b""}, AdapterReason.SOURCE_FORBIDDEN),
        (URI, {"region": b"eu-west-1"}, AdapterReason.INVALID_SOURCE),
        ("s3://no-such-bucket/x", {}, AdapterReason.SOURCE_NOT_FOUND),
        ("s3://adapters/no/such/folder", {}, AdapterReason.SOURCE_NOT_FOUND),
    ],
)
async def test_refused_by_the_server(
    uri: str, changes: dict[str, bytes], reason: AdapterReason, endpoint: str, tmp_path: Path
) -> None:
    async with Sources(settings(tmp_path / "scratch")) as sources:
        with pytest.raises(SourceError) as caught:
            await fetch(sources, uri, tmp_path, keys(endpoint, **changes))
    assert caught.value.reason is reason, caught.value
    for secret in (ACCESS_KEY, SECRET_KEY, "wrong", "X-Amz"):
        assert secret not in caught.value.message


@pytest.mark.parametrize(
    ("uri", "secret", "revision", "reason"),
    [
        ("s3://UPPER/x", {}, None, AdapterReason.INVALID_SOURCE),
        ("s3:///x", {}, None, AdapterReason.INVALID_SOURCE),
        ("s3://adapters/x?versionId=1", {}, None, AdapterReason.INVALID_SOURCE),
        ("s3://adapters/x", {}, "v1", AdapterReason.INVALID_SOURCE),
        ("s3://adapters/x", {"endpoint": b"nonsense"}, None, AdapterReason.INVALID_SOURCE),
        ("s3://adapters/x", {"accessKeyId": b"only"}, None, AdapterReason.SOURCE_FORBIDDEN),
        ("s3://adapters/x", {"endpoint": b"http://169.254.169.254"}, None, AdapterReason.SOURCE_NOT_ALLOWED),
        ("s3://adapters/x", {"endpoint": b"http://127.0.0.1:9"}, None, AdapterReason.SOURCE_NOT_ALLOWED),
        ("s3://adapters/x", {"endpoint": b"file:///etc"}, None, AdapterReason.INVALID_SOURCE),
    ],
)
async def test_refused_before_anything_is_sent(
    uri: str, secret: dict[str, bytes], revision: str | None, reason: AdapterReason, tmp_path: Path
) -> None:
    async with Sources(settings(tmp_path / "scratch", networks=Networks())) as sources:
        with pytest.raises(SourceError) as caught:
            await fetch(sources, uri, tmp_path, secret, revision)
    assert caught.value.reason is reason, caught.value


ENDPOINTS = ["https://minio.our.org", "http://*.storage.svc:9000/"]


@pytest.mark.parametrize(
    ("endpoint", "named", "partition", "patterns", "allowed"),
    [
        ("https://s3.eu-west-1.amazonaws.com", False, "aws", [], True),
        ("https://s3.cn-north-1.amazonaws.com.cn", False, "aws-cn", [], False),
        ("https://s3.cn-north-1.amazonaws.com.cn", False, "aws-cn", ["https://s3.*.amazonaws.com.cn"], True),
        ("https://evil.example", True, "aws", ["*"], True),
        ("https://evil.example", True, "aws", [], False),
        ("https://minio.our.org", True, "aws", ENDPOINTS, True),
        ("https://minio.our.org:443/", True, "aws", ENDPOINTS, True),
        ("http://minio.our.org", True, "aws", ENDPOINTS, False),
        ("http://a.storage.svc:9000", True, "aws", ENDPOINTS, True),
        ("http://evil.example/x.storage.svc:9000", True, "aws", ENDPOINTS, False),
        ("http://evil.example#.storage.svc:9000", True, "aws", ENDPOINTS, False),
        ("https://minio.our.org@evil.example", True, "aws", ENDPOINTS, False),
        ("https://minio.our.org/another-bucket", True, "aws", ENDPOINTS, False),
    ],
)
def test_which_endpoints_a_secret_may_name(
    endpoint: str, named: bool, partition: str, patterns: list[str], allowed: bool
) -> None:
    if allowed:
        check_endpoint(endpoint, named, partition, patterns)
        return
    with pytest.raises(SourceError, match="s3Endpoints") as refused:
        check_endpoint(endpoint, named, partition, patterns)
    assert refused.value.reason is AdapterReason.SOURCE_NOT_ALLOWED


@pytest.mark.parametrize(
    "secret", [{"endpoint": b"https://evil.example"}, {"region": b"cn-north-1"}, {"region": b"garage"}]
)
async def test_an_allowed_bucket_is_not_fetched_from_elsewhere(secret: dict[str, bytes], tmp_path: Path) -> None:
    async with Sources(settings(tmp_path / "scratch")) as sources:
        ref = SourceRef("s3://our-adapters/churn", s3_endpoints=())
        with pytest.raises(SourceError, match="s3Endpoints"):
            await sources.open_source(ref.uri).list(ref, secret)
