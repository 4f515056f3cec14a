"""Hostile sources: each is refused with its reason, within bounds, and a good one is served after it as before."""

import asyncio
import tracemalloc
from pathlib import Path

import pytest

from motet_api.reasons import AdapterReason
from motet_operator.store.sources.contract import Limits, SourceError, SourceRef
from motet_operator.store.sources.networks import Networks
from motet_operator.store.sources.schemes import Sources
from tests.operator.store_sources.hostile import Hostile
from tests.operator.store_sources.hostile_archives import ARCHIVES
from tests.operator.store_sources.hostile_bucket import BUCKETS
from tests.operator.store_sources.hostile_http import HTTP
from tests.operator.store_sources.hostile_registry import ARTIFACTS
from tests.operator.store_sources.servers import (
    GOOD,
    LIMITS,
    Names,
    bytes_below,
    content,
    fetch,
    folder,
    raw_server,
    served,
    settings,
)

HOSTILE = [*HTTP, *ARCHIVES, *ARTIFACTS, *BUCKETS]
SECRET = {"token": b"TOPSECRET"}


def test_the_table_is_long() -> None:
    assert len(HOSTILE) >= 25
    assert len({case.name for case in HOSTILE}) == len(HOSTILE)


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
async def test_hostile_source(case: Hostile, tmp_path: Path) -> None:
    into, scratch, good = tmp_path / "into", tmp_path / "scratch", tmp_path / "good"
    into.mkdir()
    good.mkdir()
    names = Names(internal_test="10.0.0.5")
    case.prepare()
    async with served(case.serve) as hostile, served(folder(GOOD, "/good/")) as kind:
        host = hostile.url.removeprefix("http://")
        secret = {key: value.replace(b"{host}", host.encode()) for key, value in (case.secret or SECRET).items()}
        made = settings(scratch, plain_http_registries=frozenset({host}))
        async with Sources(made, names) as sources:
            tracemalloc.start()
            try:
                with pytest.raises(SourceError) as caught:
                    await fetch(sources, case.uri.format(host=host), into, secret)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            assert (caught.value.reason, caught.value.retry_after) == (case.reason, case.retry_after), caught.value
            assert case.says in caught.value.message
            assert "SECRET" not in caught.value.message
            assert bytes_below(into) <= case.most_bytes
            assert bytes_below(scratch) == 0, "nothing may be left of an archive that was refused"
            assert peak < case.most_memory
            await fetch(sources, f"{kind.url}/good", good)
    assert content(good) == GOOD


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:9",
        "[::1]:9",
        "169.254.169.254",
        "10.1.2.3",
        "192.168.0.1",
        "100.64.0.1",
        "0.0.0.0",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::]",
        "224.0.0.1",
        "private.test",
    ],
)
async def test_address_that_is_not_allowed(host: str, tmp_path: Path) -> None:
    names = Names(private_test="172.16.0.9")
    async with Sources(settings(tmp_path / "scratch", networks=Networks()), names) as sources:
        with pytest.raises(SourceError) as caught:
            await fetch(sources, f"http://{host}/adapter", tmp_path)
    assert caught.value.reason is AdapterReason.SOURCE_NOT_ALLOWED, caught.value


@pytest.mark.parametrize("host", ["2130706433", "127.1", "0x7f.0.0.1"])
async def test_address_in_another_spelling(host: str, tmp_path: Path) -> None:
    async with Sources(settings(tmp_path / "scratch", networks=Networks())) as sources:
        with pytest.raises(SourceError) as caught:
            await fetch(sources, f"http://{host}/adapter", tmp_path)
    assert caught.value.reason in {AdapterReason.SOURCE_NOT_ALLOWED, AdapterReason.INVALID_SOURCE}


async def test_name_that_turns_to_another_address(tmp_path: Path) -> None:
    """Looked up for the listing it is a good address; looked up again for the bytes it is the metadata service."""
    names = Names(rebinding_test="127.0.0.1 127.0.0.1 127.0.0.1 169.254.169.254")
    async with served(folder(GOOD, "/good/")) as kind, Sources(settings(tmp_path / "scratch"), names) as sources:
        uri = f"http://rebinding.test:{kind.port}/good"
        source, ref = sources.open_source(uri), SourceRef(uri)
        listing = await source.list(ref, {})
        with pytest.raises(SourceError) as caught:
            await anext(source.read(ref, listing, listing.files[0], 0, {}))
    assert caught.value.reason is AdapterReason.SOURCE_NOT_ALLOWED
    assert len(names.asked) == 4


@pytest.mark.parametrize("what", [b"HTTP/1.1 200 OK\r\nX-", b"SSH-2.0-OpenSSH_9.6\r\n", b""])
async def test_server_that_is_none(what: bytes, tmp_path: Path) -> None:
    """Headers that never end, another protocol, a closed door."""

    async def talk(writer: asyncio.StreamWriter) -> None:
        writer.write(what)
        while what.startswith(b"HTTP"):
            await asyncio.sleep(0.05)
            writer.write(b"a")
            await writer.drain()

    quick = Limits(connect_seconds=0.3, idle_seconds=0.3)
    async with raw_server(talk) as url, Sources(settings(tmp_path / "scratch", limits=quick)) as sources:
        with pytest.raises(SourceError) as caught:
            await asyncio.wait_for(fetch(sources, f"{url}/adapter", tmp_path), 10)
    assert caught.value.reason is AdapterReason.FETCH_FAILED


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_many_hostile_transfers_at_once_leave_no_connection(tmp_path: Path) -> None:
    drip = next(case for case in HTTP if case.name == "slow drip")
    async with served(drip.serve) as hostile, Sources(settings(tmp_path / "scratch")) as sources:
        before = open_files()
        folders = [tmp_path / f"{number}" for number in range(8)]
        for made in folders:
            made.mkdir()
        tasks = [fetch(sources, f"{hostile.url}/adapter", made) for made in folders]
        failures = await asyncio.gather(*tasks, return_exceptions=True)
        assert {getattr(failure, "reason", failure) for failure in failures} == {AdapterReason.FETCH_FAILED}
        # The server's own ends of the connections close a moment later.
        for _ in range(100):
            if open_files() <= before:
                break
            await asyncio.sleep(0.05)
        assert open_files() <= before
    assert LIMITS.max_file_bytes > sum(map(bytes_below, folders))
