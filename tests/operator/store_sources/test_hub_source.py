"""`hf://`: pinned to a commit, weights from another origin without the token, and as huggingface_hub itself sees it."""

import asyncio
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from motet_api.reasons import AdapterReason
from motet_operator.store.sources.contract import SourceError, SourceRef
from motet_operator.store.sources.schemes import Sources
from tests.operator.store_sources.hub import COMMIT, OTHER_COMMIT, hub
from tests.operator.store_sources.servers import GOOD, WEIGHTS, content, fetch, settings

URI = "hf://org/adapter"
FILES = {**GOOD, "README.md": b"# hi", "adapter_model.bin": b"\x80\x04.", ".gitattributes": b"", "runs/x.json": b"{}"}


@pytest.mark.parametrize(
    ("uri", "revision"),
    [(URI, None), (f"{URI}@main", None), (URI, COMMIT), (f"{URI}@{COMMIT}", COMMIT), (f"{URI}@main", COMMIT)],
)
async def test_repository(uri: str, revision: str | None, tmp_path: Path) -> None:
    into = tmp_path / "into"
    into.mkdir()
    async with (
        hub(FILES, "hf_secret") as (_, server, network),
        Sources(settings(tmp_path / "scratch", hub_endpoint=server.url)) as sources,
    ):
        listing = await fetch(sources, uri, into, {"token": b"hf_secret\n"}, revision)
    assert content(into) == GOOD
    assert listing.revision == COMMIT
    assert "adapter_model.bin" in listing.passed_over
    assert not [path for path in server.paths() + network.paths() if path.endswith(".bin")], "a pickle was fetched"
    assert {request.headers.get("Authorization") for request in server.requests} == {"Bearer hf_secret"}
    assert {request.headers.get("Authorization") for request in network.requests} == {None}


async def test_the_library_sees_the_same(tmp_path: Path) -> None:
    async with (
        hub(FILES) as (_, server, _),
        Sources(settings(tmp_path / "scratch", hub_endpoint=server.url)) as sources,
    ):
        listing = await sources.open_source(URI).list(SourceRef(URI), {})
        api = HfApi(endpoint=server.url, token=False)
        info = await asyncio.to_thread(api.model_info, "org/adapter", revision="main", files_metadata=True)
    theirs = {
        sibling.rfilename: (sibling.size, sibling.lfs.sha256 if sibling.lfs else None)
        for sibling in info.siblings or []
    }
    assert {file.name: (file.size, file.sha256) for file in listing.files} == {name: theirs[name] for name in GOOD}
    assert info.sha == listing.revision


async def test_resumed_read(tmp_path: Path) -> None:
    async with (
        hub(FILES) as (_, server, _),
        Sources(settings(tmp_path / "scratch", hub_endpoint=server.url)) as sources,
    ):
        source, ref = sources.open_source(URI), SourceRef(URI)
        listing = await source.list(ref, {})
        rest = b"".join([chunk async for chunk in source.read(ref, listing, listing.files[1], 999_999, {})])
    assert rest == WEIGHTS[999_999:]


@pytest.mark.parametrize(
    ("uri", "revision", "token", "reason"),
    [
        (URI, None, b"", AdapterReason.SOURCE_FORBIDDEN),
        (URI, None, b"two\nlines", AdapterReason.SOURCE_FORBIDDEN),
        (URI, "no-such-branch", b"hf_secret", AdapterReason.SOURCE_NOT_FOUND),
        ("hf://org/other", None, b"hf_secret", AdapterReason.SOURCE_NOT_FOUND),
        ("hf://adapter", None, b"hf_secret", AdapterReason.INVALID_SOURCE),
        ("hf://org/../adapter", None, b"hf_secret", AdapterReason.INVALID_SOURCE),
        (f"{URI}@main", "v2", b"hf_secret", AdapterReason.INVALID_SOURCE),
    ],
)
async def test_refused(uri: str, revision: str | None, token: bytes, reason: AdapterReason, tmp_path: Path) -> None:
    async with (
        hub(FILES, "hf_secret") as (_, server, _),
        Sources(settings(tmp_path / "scratch", hub_endpoint=server.url)) as sources,
    ):
        with pytest.raises(SourceError) as caught:
            await fetch(sources, uri, tmp_path, {"token": token}, revision)
    assert caught.value.reason is reason, caught.value
    assert "hf_secret" not in caught.value.message


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sha": None}, AdapterReason.FETCH_FAILED),
        ({"sha": "../../main"}, AdapterReason.FETCH_FAILED),
        ({"siblings": "x"}, AdapterReason.FETCH_FAILED),
        ({"siblings": []}, AdapterReason.SOURCE_NOT_FOUND),
    ],
)
async def test_hub_that_makes_no_sense(changes: dict[str, object], reason: AdapterReason, tmp_path: Path) -> None:
    async with hub(FILES) as (made, server, _):
        made.changes = changes
        async with Sources(settings(tmp_path / "scratch", hub_endpoint=server.url)) as sources:
            with pytest.raises(SourceError) as caught:
                await fetch(sources, URI, tmp_path)
    assert caught.value.reason is reason, caught.value


async def test_a_commit_is_read_whatever_the_branch_of_the_uri_is_at_by_now(tmp_path: Path) -> None:
    async with (
        hub(dict(FILES)) as (made, server, _),
        Sources(settings(tmp_path / "scratch", hub_endpoint=server.url)) as sources,
    ):
        made.revisions["main"] = OTHER_COMMIT
        listing = await sources.open_source(URI).list(SourceRef(f"{URI}@main", COMMIT), {})
    assert listing.revision == COMMIT


async def test_branch_that_moves_between_listing_and_reading(tmp_path: Path) -> None:
    async with (
        hub(dict(FILES)) as (made, server, _),
        Sources(settings(tmp_path / "scratch", hub_endpoint=server.url)) as sources,
    ):
        source, ref = sources.open_source(URI), SourceRef(URI)
        listing = await source.list(ref, {})
        made.revisions["main"] = OTHER_COMMIT
        read = b"".join([chunk async for chunk in source.read(ref, listing, listing.files[1], 0, {})])
    assert read == WEIGHTS, "the listing's commit is read, not the branch"


@pytest.mark.parametrize(
    ("moved", "data", "reason"),
    [
        ("http://169.254.169.254", None, AdapterReason.SOURCE_NOT_ALLOWED),
        ("", WEIGHTS[::-1], AdapterReason.DIGEST_MISMATCH),
        ("", WEIGHTS[:-1], AdapterReason.FETCH_FAILED),
    ],
    ids=["private address", "other bytes", "fewer bytes"],
)
async def test_hostile_content_network(moved: str, data: bytes | None, reason: AdapterReason, tmp_path: Path) -> None:
    files = dict(GOOD)
    async with (
        hub(files) as (made, server, _),
        Sources(settings(tmp_path / "scratch", hub_endpoint=server.url)) as sources,
    ):
        source, ref = sources.open_source(URI), SourceRef(URI)
        listing = await source.list(ref, {})
        made.moved = moved or made.moved
        if data is not None:
            files["adapter_model.safetensors"] = data
        with pytest.raises(SourceError) as caught:
            async for _ in source.read(ref, listing, listing.files[1], 0, {}):
                pass
    assert caught.value.reason is reason, caught.value
