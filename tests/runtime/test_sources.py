"""Adapters over HTTP: whole files only, bounded, no redirects, and every failure with its reason."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from motet_api.reasons import AdapterReason
from motet_runtime.adapters import sources
from motet_runtime.errors import AdapterError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@asynccontextmanager
async def server(answers: dict[str, web.Response]) -> AsyncIterator[str]:
    """Serves these answers by path below /a/; yields the folder's URL."""

    async def answer(request: web.Request) -> web.Response:
        found = answers.get(request.match_info["name"])
        return web.Response(status=404) if found is None else found

    app = web.Application()
    app.router.add_get("/a/{name}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/a"
    finally:
        await runner.cleanup()


async def reason_of(url: str) -> AdapterReason:
    with pytest.raises(AdapterError) as refused:
        async with sources.opened(url, Path("/nowhere")):
            pass
    return refused.value.reason


async def test_both_files_are_fetched_and_gone_afterwards() -> None:
    async with server({CONFIG: web.Response(body=b"{}"), WEIGHTS: web.Response(body=b"w" * 1000)}) as url:
        async with sources.opened(url + "/", Path("/nowhere")) as folder:
            assert {path.name: path.stat().st_size for path in folder.iterdir()} == {CONFIG: 2, WEIGHTS: 1000}
        assert not folder.exists()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, AdapterReason.SOURCE_NOT_FOUND),
        (web.Response(status=500), AdapterReason.FETCH_FAILED),
        (web.Response(status=302, headers={"Location": "http://127.0.0.1:1/secret"}), AdapterReason.FETCH_FAILED),
    ],
    ids=["missing", "server error", "redirect"],
)
async def test_an_answer_that_is_no_file_is_a_failure(answer: web.Response | None, reason: AdapterReason) -> None:
    answers = {CONFIG: web.Response(body=b"{}")} | ({WEIGHTS: answer} if answer else {})
    async with server(answers) as url:
        assert await reason_of(url) is reason


async def test_a_file_beyond_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_FILE_BYTES", 100)
    async with server({CONFIG: web.Response(body=b"x" * 101)}) as url:
        assert await reason_of(url) is AdapterReason.FETCH_FAILED


async def test_a_server_that_is_not_there_is_a_failure_that_is_tried_again() -> None:
    reason = await reason_of("http://127.0.0.1:1/a")
    assert reason is AdapterReason.FETCH_FAILED
    assert reason.transient
