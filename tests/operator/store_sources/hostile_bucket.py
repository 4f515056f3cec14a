"""Hostile S3 endpoints: a tenant's Secret names the endpoint, so it can be anything."""

from collections.abc import Callable

from aiohttp import web

from motet_api.reasons import AdapterReason as R
from tests.operator.store_sources.hostile import Hostile
from tests.operator.store_sources.servers import CONFIG, WEIGHTS

SPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
SECRET = {"accessKeyId": b"SECRETID", "secretAccessKey": b"SECRETKEY", "endpoint": b"http://{host}"}
ENTITIES = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
BILLION_LAUGHS = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e0 "ha">{ENTITIES}]><x>&e11;</x>'
LEAK = '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><ListBucketResult><Name>&e;</Name></ListBucketResult>'


MOST_MEMORY = 32 << 20
"""boto3's model of S3, once for the process, is half of it."""


def page(*objects: tuple[str, int], more: str = "", without: str = "") -> str:
    entries = "".join(
        f"<Contents><Key>{key}</Key><Size>{size}</Size><ETag>&quot;1&quot;</ETag></Contents>" for key, size in objects
    )
    token = f"<NextContinuationToken>{more}</NextContinuationToken>" if more else ""
    text = f"<ListBucketResult {SPACE}>{entries}{token}</ListBucketResult>"
    return text.replace("<ETag>&quot;1&quot;</ETag>", "") if without == "ETag" else text


def _row(name: str, reason: R, body: str | Callable[[], str], most_bytes: int = 0, etag: str = '"1"') -> Hostile:
    async def serve(request: web.Request) -> web.StreamResponse:
        if request.path.endswith((".json", ".safetensors")):
            data = CONFIG if request.path.endswith(".json") else WEIGHTS
            return web.Response(body=data, headers={"ETag": etag})
        return web.Response(text=body if isinstance(body, str) else body(), content_type="application/xml")

    return Hostile(
        f"s3: {name}", reason, serve, "s3://bucket/folder", most_bytes, secret=SECRET, most_memory=MOST_MEMORY
    )


_CONFIG = ("folder/adapter_config.json", len(CONFIG))
_WEIGHTS = "folder/adapter_model.safetensors"

BUCKETS = [
    _row("a billion laughs", R.INVALID_SOURCE, BILLION_LAUGHS),
    _row("an entity that reads a file", R.INVALID_SOURCE, LEAK),
    _row("a listing without end", R.TOO_LARGE, lambda: page(("folder/x.png", 1), more="again")),
    _row("a listing of five megabytes", R.TOO_LARGE, "<x>" + "y" * (5 << 20)),
    _row("a listing of depth", R.INVALID_SOURCE, "<x>" * 300_000),
    _row("a listing of less depth", R.INVALID_SOURCE, "<x>" * 60_000),
    _row("no listing", R.INVALID_SOURCE, "{}"),
    _row("objects without ETags", R.INVALID_SOURCE, page(_CONFIG, without="ETag")),
    _row(
        "names that lead upwards",
        R.SOURCE_NOT_FOUND,
        page(("folder/../../config.json", 1), ("/etc/config.json", 1)),
    ),
    _row("an object of a petabyte", R.TOO_LARGE, page(_CONFIG, (_WEIGHTS, 1 << 50))),
    _row("an object longer than listed", R.FETCH_FAILED, page(_CONFIG, (_WEIGHTS, 10)), len(CONFIG)),
    _row("an object that is another one", R.FETCH_FAILED, page(_CONFIG, (_WEIGHTS, len(WEIGHTS))), etag='"2"'),
]
