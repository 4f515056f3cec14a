"""Folders and archives over http: what is listed, how a read is resumed, and where credentials go."""

import gzip
import json
from pathlib import Path

import pytest
from aiohttp import web

from motet_api.reasons import AdapterReason
from motet_operator.store.sources.contract import SourceChangedError, SourceError, SourceRef
from motet_operator.store.sources.schemes import Sources
from tests.operator.store_sources.hostile_archives import GOOD_TAR, entry, tar, zipped
from tests.operator.store_sources.servers import (
    CONFIG,
    GOOD,
    WEIGHTS,
    Handler,
    bytes_below,
    content,
    fetch,
    folder,
    served,
    settings,
)

WEIGHTS_FILE = "adapter_model.safetensors"
INDEX = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}})
BASE = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "model.safetensors.index.json": INDEX.encode(),
    "model-1.safetensors": WEIGHTS,
    "model-2.safetensors": WEIGHTS[::-1],
}


@pytest.mark.parametrize("files", [GOOD, BASE], ids=["adapter", "base in parts"])
async def test_folder(files: dict[str, bytes], tmp_path: Path) -> None:
    into = tmp_path / "into"
    into.mkdir()
    async with served(folder(files, "/a/")) as server, Sources(settings(tmp_path / "scratch")) as sources:
        listing = await fetch(sources, f"{server.url}/a/", into)
    assert content(into) == files
    assert {file.name: file.size for file in listing.files} == {name: len(data) for name, data in files.items()}


async def test_revision_changes_with_the_files_only(tmp_path: Path) -> None:
    files = dict(GOOD)
    async with served(folder(files, "/a/")) as server, Sources(settings(tmp_path / "scratch")) as sources:
        source, ref = sources.open_source(server.url), SourceRef(f"{server.url}/a")
        first, same = await source.list(ref, {}), await source.list(ref, {})
        files[WEIGHTS_FILE] = WEIGHTS[::-1]
        other = await source.list(ref, {})
    assert first.revision == same.revision != other.revision
    assert first.revision.startswith("sha256:")


@pytest.mark.parametrize("ranges", [True, False])
async def test_resumed_read(ranges: bool, tmp_path: Path) -> None:
    whole = folder(GOOD, "/a/")

    async def deaf(request: web.Request) -> web.StreamResponse:
        return await whole(request.clone(headers={}))

    async with served(whole if ranges else deaf) as server, Sources(settings(tmp_path / "scratch")) as sources:
        source, ref = sources.open_source(server.url), SourceRef(f"{server.url}/a")
        listing = await source.list(ref, {})
        file = next(file for file in listing.files if file.name == WEIGHTS_FILE)
        rest = b"".join([chunk async for chunk in source.read(ref, listing, file, 700_001, {})])
    assert rest == WEIGHTS[700_001:]


@pytest.mark.parametrize("offset", [0, 5000])
@pytest.mark.parametrize("checks", [True, False], ids=["If-Match is heeded", "If-Match is not heeded"])
async def test_file_that_changed_since_it_was_listed(offset: int, checks: bool, tmp_path: Path) -> None:
    files = dict(GOOD)
    serve = folder(files, "/a/")

    async def lax(request: web.Request) -> web.StreamResponse:
        headers = {key: value for key, value in request.headers.items() if checks or key != "If-Match"}
        return await serve(request.clone(headers=headers))

    async with served(lax) as server, Sources(settings(tmp_path / "scratch")) as sources:
        source, ref = sources.open_source(server.url), SourceRef(f"{server.url}/a")
        listing = await source.list(ref, {})
        files[WEIGHTS_FILE] = WEIGHTS[::-1]
        with pytest.raises(SourceChangedError):
            await anext(source.read(ref, listing, listing.files[1], offset, {}))


async def test_read_cannot_be_resumed_without_an_identity(tmp_path: Path) -> None:
    async def nameless(request: web.Request) -> web.StreamResponse:
        data = GOOD.get(request.path.rpartition("/")[2])
        return web.Response(status=404) if data is None else web.Response(body=data)

    async with served(nameless) as server, Sources(settings(tmp_path / "scratch")) as sources:
        source, ref = sources.open_source(server.url), SourceRef(f"{server.url}/a")
        listing = await source.list(ref, {})
        assert b"".join([chunk async for chunk in source.read(ref, listing, listing.files[0], 0, {})]) == CONFIG
        with pytest.raises(SourceChangedError, match="neither ETag nor Last-Modified"):
            await anext(source.read(ref, listing, listing.files[0], 1, {}))


@pytest.mark.parametrize(
    ("secret", "header"),
    [
        ({"token": b"abc\n"}, "Bearer abc"),
        ({"username": b"me", "password": b"pw"}, "Basic bWU6cHc="),
        ({"other": b"x"}, None),
    ],
)
async def test_credentials_stay_with_their_origin(secret: dict[str, bytes], header: str | None, tmp_path: Path) -> None:
    async with served(folder(GOOD, "/a/")) as elsewhere:

        async def send_on(request: web.Request) -> web.StreamResponse:
            return web.Response(status=302, headers={"Location": f"{elsewhere.url}{request.path}"})

        async with served(send_on) as server, Sources(settings(tmp_path / "scratch")) as sources:
            await fetch(sources, f"{server.url}/a", tmp_path, secret)
    assert {request.headers.get("Authorization") for request in server.requests} == {header}
    assert {request.headers.get("Authorization") for request in elsewhere.requests} == {None}


@pytest.mark.parametrize(
    ("uri", "revision", "says"),
    [
        ("http://me:pw@127.0.0.1:1/a", None, "Secret"),
        ("http:///a", None, "http"),
        ("http://127.0.0.1:1/a", "main", "revision"),
        ("http://127.0.0.1:1/a.zip", "main", "revision"),
        ("ftp://host/a", None, "scheme"),
        ("http://[::1/a", None, "URI"),
    ],
)
async def test_uri_that_means_nothing(uri: str, revision: str | None, says: str, tmp_path: Path) -> None:
    async with Sources(settings(tmp_path / "scratch")) as sources:
        with pytest.raises(SourceError, match=says) as caught:
            await fetch(sources, uri, tmp_path, revision=revision)
    assert caught.value.reason is AdapterReason.INVALID_SOURCE
    assert "pw" not in caught.value.message


def archive(data: bytes) -> Handler:
    async def serve(request: web.Request) -> web.StreamResponse:
        return web.Response(body=data)

    return serve


PICKLE = ("adapter_model.bin", b"\x80\x04.")
FORMS = {
    "tar": GOOD_TAR,
    "tar.gz": gzip.compress(GOOD_TAR),
    "tgz": gzip.compress(tar(*(entry(name, data) for name, data in {**GOOD, PICKLE[0]: PICKLE[1]}.items()))),
    "zip": zipped(*GOOD.items(), PICKLE),
}


@pytest.mark.parametrize("ending", FORMS)
async def test_archive(ending: str, tmp_path: Path) -> None:
    into, scratch = tmp_path / "into", tmp_path / "scratch"
    into.mkdir()
    async with served(archive(FORMS[ending])) as server, Sources(settings(scratch)) as sources:
        listing = await fetch(sources, f"{server.url}/x/churn.{ending}?signature=1", into)
    assert content(into) == GOOD
    assert bytes_below(scratch) == 0, "released"
    assert listing.passed_over == ((PICKLE[0],) if ending in {"tgz", "zip"} else ())
    assert len(server.requests) == 1


async def test_archive_that_is_gone_from_disk_is_fetched_again_and_must_be_the_same(tmp_path: Path) -> None:
    held = [FORMS["zip"]]

    async def serve(request: web.Request) -> web.StreamResponse:
        return web.Response(body=held[0])

    async with served(serve) as server, Sources(settings(tmp_path / "scratch")) as sources:
        uri = f"{server.url}/a.zip"
        source, ref = sources.open_source(uri), SourceRef(uri)
        listing = await source.list(ref, {})
        await source.release(listing)
        assert b"".join([chunk async for chunk in source.read(ref, listing, listing.files[0], 3, {})]) == CONFIG[3:]
        await source.release(listing)
        held[0] = zipped(*GOOD.items(), ("other.txt", b"x"))
        with pytest.raises(SourceChangedError):
            await anext(source.read(ref, listing, listing.files[0], 3, {}))


@pytest.mark.parametrize(
    ("files", "listed"),
    [
        (GOOD, set(GOOD)),
        (BASE, set(BASE)),
        ({"adapter_config.json": CONFIG}, None),
        ({}, None),
    ],
    ids=["no signature", "base", "weights that are refused", "nothing"],
)
async def test_server_that_answers_403_for_what_is_not_there(
    files: dict[str, bytes], listed: set[str] | None, tmp_path: Path
) -> None:
    whole = folder(files, "/a/")

    async def secretive(request: web.Request) -> web.StreamResponse:
        answer = await whole(request)
        return answer if answer.status != 404 else web.Response(status=403)

    async with served(secretive) as server, Sources(settings(tmp_path / "scratch")) as sources:
        listing = sources.open_source(server.url).list(SourceRef(f"{server.url}/a"), {})
        if listed is not None:
            assert {file.name for file in (await listing).files} == listed
            return
        with pytest.raises(SourceError) as caught:
            await listing
    assert caught.value.reason is AdapterReason.SOURCE_FORBIDDEN


class Public:
    """Every address is like one in public: connected to, and named by nobody."""

    def permits(self, address: str) -> bool:
        return True

    def names(self, address: str) -> bool:
        return False


@pytest.mark.parametrize("secret", [{"token": b"s3cret"}, {"username": b"me", "password": b"s3cret"}])
async def test_no_credentials_over_plain_http_but_to_networks_that_are_named(
    secret: dict[str, bytes], tmp_path: Path
) -> None:
    seen: list[str | None] = []
    files = folder(GOOD, "/a/")

    async def noting(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers.get("Authorization"))
        return await files(request)

    async with served(noting) as server, Sources(settings(tmp_path / "public", networks=Public())) as sources:
        ref = SourceRef(f"{server.url}/a")
        source = sources.open_source(ref.uri)
        with pytest.raises(SourceError, match="plain http: use https") as refused:
            await source.list(ref, secret)
        assert refused.value.reason is AdapterReason.SOURCE_NOT_ALLOWED
        assert seen == []
        await source.list(ref, {})
        assert set(seen) == {None}
        with pytest.raises(SourceError, match="plain http"):
            keys = {"accessKeyId": b"a", "secretAccessKey": b"b", "endpoint": server.url.encode()}
            await sources.open_source("s3://ours/x").list(SourceRef("s3://ours/x"), keys)
    async with served(noting) as server, Sources(settings(tmp_path / "named")) as sources:
        ref = SourceRef(f"{server.url}/a")
        await sources.open_source(ref.uri).list(ref, secret)
        assert all(seen[-3:])
