"""https: a certificate of an authority that the store does not know is refused; SSL_CERT_FILE names others."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from motet_api.reasons import AdapterReason
from motet_operator.store.sources.contract import SourceError
from motet_operator.store.sources.schemes import Sources
from tests.operator.certificates import authority, signed
from tests.operator.store_sources.servers import GOOD, content, fetch, folder, served, settings

FETCH = """
import asyncio, sys
from pathlib import Path
from motet_operator.store.sources.contract import SourceError
from motet_operator.store.sources.schemes import Sources
from tests.operator.store_sources.servers import fetch, settings

async def main():
    async with Sources(settings(Path(sys.argv[2]) / "scratch")) as sources:
        try:
            await fetch(sources, sys.argv[1], Path(sys.argv[2]) / "into")
        except SourceError as error:
            sys.exit(error.reason.value)

asyncio.run(main())
"""


async def test_unknown_authority(tmp_path: Path) -> None:
    pair = signed(tmp_path, "server", authority(tmp_path, "ours"), "serverAuth")
    async with served(folder(GOOD, "/a/"), pair) as server, Sources(settings(tmp_path / "scratch")) as sources:
        with pytest.raises(SourceError, match="certificate") as caught:
            await fetch(sources, f"{server.url}/a", tmp_path)
    assert caught.value.reason is AdapterReason.FETCH_FAILED


@pytest.mark.process
@pytest.mark.parametrize("downgrade", [False, True])
async def test_known_authority_and_a_redirect_to_plain_http(downgrade: bool, tmp_path: Path) -> None:
    (tmp_path / "into").mkdir()
    ours = authority(tmp_path, "ours")
    async with served(folder(GOOD, "/a/")) as plain:

        async def send_on(request: object) -> object:
            from aiohttp import web

            return web.Response(status=302, headers={"Location": f"{plain.url}/a/adapter_config.json"})

        serve = send_on if downgrade else folder(GOOD, "/a/")
        async with served(serve, signed(tmp_path, "server", ours, "serverAuth")) as server:  # type: ignore[arg-type]
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", FETCH, f"{server.url}/a", str(tmp_path)),
                env={**os.environ, "SSL_CERT_FILE": str(ours.certificate), "PYTHONPATH": os.pathsep.join(sys.path)},
                stderr=asyncio.subprocess.PIPE,
            )
            _, said = await asyncio.wait_for(process.communicate(), 60)
    assert said.decode().strip() == ("SourceNotAllowed" if downgrade else "")
    assert content(tmp_path / "into") == ({} if downgrade else GOOD)
    assert plain.requests == []
