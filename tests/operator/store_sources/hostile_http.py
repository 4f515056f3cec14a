"""Hostile web servers: redirects, lengths that lie, time, pages, encodings, statuses."""

import asyncio
from collections.abc import Callable

from aiohttp import web

from motet_api.reasons import AdapterReason as R
from tests.operator.store_sources.hostile import Hostile, always
from tests.operator.store_sources.servers import CONFIG, GOOD, LIMITS, Handler, folder

WEIGHTS_FILE = "adapter_model.safetensors"
_BLOCK = bytes(1 << 16)


def redirect(location: str) -> Handler:
    return always(lambda: web.Response(status=302, headers={"Location": location}))


def status(code: int, **headers: str) -> Handler:
    return always(lambda: web.Response(status=code, headers={key.replace("_", "-"): v for key, v in headers.items()}))


def weights(serve: Callable[[web.Request], web.StreamResponse] | Handler) -> Handler:
    """A good folder, but for the weights' GET."""
    good = folder(GOOD, "/adapter/")

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.method == "GET" and request.path.endswith(WEIGHTS_FILE):
            made = serve(request)
            return await made if asyncio.iscoroutine(made) else made  # type: ignore[return-value]
        return await good(request)

    return answer


async def _promises_more(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": str(len(GOOD[WEIGHTS_FILE]))})
    await response.prepare(request)
    await response.write(b"short")
    assert request.transport is not None
    request.transport.close()
    return response


async def _drip(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": str(len(GOOD[WEIGHTS_FILE]))})
    await response.prepare(request)
    for _ in range(1000):
        await response.write(b"x")
        await asyncio.sleep(0.02)
    return response


async def _stall(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": str(len(GOOD[WEIGHTS_FILE]))})
    await response.prepare(request)
    await response.write(b"x" * 1000)
    await asyncio.sleep(30)
    return response


async def _silent(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(30)
    return web.Response()


async def _endless(request: web.Request) -> web.StreamResponse:
    """No length, no end, and no HEAD to say so."""
    if request.method == "HEAD":
        return web.Response(status=405)
    response = web.StreamResponse()
    await response.prepare(request)
    while request.path.endswith(WEIGHTS_FILE):
        await response.write(_BLOCK)
    return response


async def _longer(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"ETag": _etag()})
    response.enable_chunked_encoding()
    await response.prepare(request)
    for _ in range(64):
        await response.write(_BLOCK)
    return response


def _etag() -> str:
    import hashlib

    return f'"{hashlib.md5(GOOD[WEIGHTS_FILE]).hexdigest()}"'


async def _huge_by_its_own_word(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": str(1 << 50)})
    await response.prepare(request)
    return response


def base(index: bytes) -> Handler:
    return folder({"config.json": CONFIG, "model.safetensors.index.json": index}, "/adapter/")


GZIP_BOMB = always(lambda: web.Response(body=b"\x1f\x8b" + bytes(64), headers={"Content-Encoding": "gzip"}))
PAGE = b"  <!DOCTYPE html><html><form>log in</form></html>"
_WRITTEN = len(CONFIG)

HTTP = [
    Hostile(
        "redirect to the metadata address", R.SOURCE_NOT_ALLOWED, redirect("http://169.254.169.254/latest/meta-data")
    ),
    Hostile(
        "redirect to a private name", R.SOURCE_NOT_ALLOWED, redirect("http://internal.test/"), says="internal.test"
    ),
    Hostile("redirect to IPv6 loopback", R.SOURCE_NOT_ALLOWED, redirect("http://[::1]/")),
    Hostile("redirect to a mapped address", R.SOURCE_NOT_ALLOWED, redirect("http://[::ffff:169.254.169.254]/")),
    Hostile("redirect to a number", R.INVALID_SOURCE, redirect("http://2852039166/")),
    Hostile("redirect to file", R.SOURCE_NOT_ALLOWED, redirect("file:///etc/passwd")),
    Hostile("redirect to ftp", R.SOURCE_NOT_ALLOWED, redirect("ftp://127.0.0.1/x")),
    Hostile("redirect to nonsense", R.SOURCE_NOT_ALLOWED, redirect("http://[nonsense/")),
    Hostile("redirect loop", R.INVALID_SOURCE, redirect("/adapter/again"), says="3 redirects"),
    Hostile("more bytes than listed", R.FETCH_FAILED, weights(_longer), most_bytes=_WRITTEN + len(GOOD[WEIGHTS_FILE])),
    Hostile("fewer bytes than promised", R.FETCH_FAILED, weights(_promises_more), most_bytes=_WRITTEN + 5),
    Hostile(
        "another length than listed", R.FETCH_FAILED, weights(lambda _: web.Response(body=b"tiny")), most_bytes=_WRITTEN
    ),
    Hostile("slow drip", R.FETCH_FAILED, weights(_drip), most_bytes=_WRITTEN + 1000, says="below the minimum"),
    Hostile("stall in the body", R.FETCH_FAILED, weights(_stall), most_bytes=_WRITTEN + 1000, says="in time"),
    Hostile("no answer", R.FETCH_FAILED, _silent, says="in time"),
    Hostile("never-ending body", R.TOO_LARGE, _endless, most_bytes=LIMITS.max_file_bytes),
    Hostile("a petabyte by its own word", R.TOO_LARGE, _huge_by_its_own_word),
    Hostile(
        "page instead of a folder", R.INVALID_SOURCE, always(lambda: web.Response(body=PAGE, content_type="text/html"))
    ),
    Hostile(
        "page instead of weights",
        R.INVALID_SOURCE,
        folder({"adapter_config.json": CONFIG, WEIGHTS_FILE: PAGE}, "/adapter/"),
        most_bytes=_WRITTEN,
        says="web page",
    ),
    Hostile("401", R.SOURCE_FORBIDDEN, status(401)),
    Hostile("403", R.SOURCE_FORBIDDEN, status(403)),
    Hostile("404", R.SOURCE_NOT_FOUND, status(404)),
    Hostile("410", R.SOURCE_NOT_FOUND, status(410)),
    Hostile("500", R.FETCH_FAILED, status(500)),
    Hostile("503 with a wait of years", R.FETCH_FAILED, status(503, Retry_After="999999999"), retry_after=3600),
    Hostile("429", R.FETCH_FAILED, status(429, Retry_After="7"), retry_after=7),
    Hostile("300 without a place", R.INVALID_SOURCE, status(300)),
    Hostile("Content-Encoding bomb", R.INVALID_SOURCE, GZIP_BOMB, says="Content-Encoding"),
    Hostile("header of a megabyte", R.FETCH_FAILED, status(200, X_Long="x" * (1 << 20))),
    Hostile("index that leads upwards", R.INVALID_CONFIG, base(b'{"weight_map": {"a": "../../etc/passwd"}}')),
    Hostile("index of a pickle", R.INVALID_CONFIG, base(b'{"weight_map": {"a": "pytorch_model.bin"}}')),
    Hostile("index without end", R.INVALID_CONFIG, base(b"[" * 200_000)),
    Hostile("index of no names", R.INVALID_CONFIG, base(b'{"weight_map": {"a": 7, "b": []}}')),
    Hostile(
        "index of a hundred files",
        R.TOO_LARGE,
        base(b'{"weight_map": {%s}}' % b",".join(b'"%d": "%d.safetensors"' % (i, i) for i in range(100))),
    ),
]
