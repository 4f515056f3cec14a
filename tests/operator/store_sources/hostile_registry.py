"""Hostile OCI registries: manifests and blobs that are not what they are named."""

import gzip
import json

from aiohttp import web

from motet_api.reasons import AdapterReason as R
from tests.operator.store_sources.hostile import Hostile
from tests.operator.store_sources.hostile_archives import bomb, entry, tar
from tests.operator.store_sources.registry import MANIFEST_TYPE, blob_digest, layer, manifest
from tests.operator.store_sources.servers import CONFIG, GOOD, Handler

WEIGHTS_FILE = "adapter_model.safetensors"
_CONFIG_LAYER = layer("adapter_config.json", CONFIG)


def registry(body: bytes, blobs: dict[str, bytes]) -> Handler:
    async def serve(request: web.Request) -> web.StreamResponse:
        if "/manifests/" in request.path:
            return web.Response(body=body, content_type=MANIFEST_TYPE)
        blob = blobs.get(request.path.rpartition("/")[2])
        return (
            web.Response(body=blob) if blob is not None else web.Response(status=200 if request.path == "/v2/" else 404)
        )

    return serve


def _artifact(*layers: dict[str, object], **blobs: bytes) -> Handler:
    held = {blob_digest(CONFIG): CONFIG, blob_digest(GOOD[WEIGHTS_FILE]): GOOD[WEIGHTS_FILE]}
    return registry(manifest(*layers), held | {f"sha256:{key[1:]}": data for key, data in blobs.items()})


def _row(name: str, reason: R, serve: Handler, tag: str = ":v1", most_bytes: int = 0, says: str = "") -> Hostile:
    return Hostile(f"oci: {name}", reason, serve, f"oci://{{host}}/team/adapter{tag}", most_bytes, says=says)


def _key(digest: str) -> str:
    return "x" + digest.removeprefix("sha256:")


_WEIGHTS = GOOD[WEIGHTS_FILE]
_OTHER = bytes(reversed(_WEIGHTS))
_LIE = layer(WEIGHTS_FILE, _WEIGHTS) | {"size": len(_WEIGHTS) - 1}
_BIG_LIE = layer(WEIGHTS_FILE, _WEIGHTS) | {"size": len(_WEIGHTS) + 1}
_ESCAPE = tar(entry("../adapter_config.json"))
_TAR = "application/vnd.oci.image.layer.v1.tar"
_BOMB = bomb(1 << 28)


async def _token_from_metadata(request: web.Request) -> web.StreamResponse:
    challenge = 'Bearer realm="http://169.254.169.254/token",service="registry"'
    return web.Response(status=401, headers={"WWW-Authenticate": challenge})


ARTIFACTS = [
    _row(
        "blob with another digest",
        R.DIGEST_MISMATCH,
        _artifact(_CONFIG_LAYER, layer(WEIGHTS_FILE, _WEIGHTS), **{_key(blob_digest(_WEIGHTS)): _OTHER}),
        most_bytes=len(CONFIG) + len(_WEIGHTS),
        says="digest",
    ),
    _row("size below the blob's", R.DIGEST_MISMATCH, _artifact(_CONFIG_LAYER, _LIE), most_bytes=len(CONFIG)),
    _row("size above the blob's", R.DIGEST_MISMATCH, _artifact(_CONFIG_LAYER, _BIG_LIE), most_bytes=len(CONFIG)),
    _row("layer of a petabyte", R.TOO_LARGE, _artifact(_CONFIG_LAYER, layer("a.safetensors", b"") | {"size": 1 << 50})),
    _row("negative size", R.INVALID_SOURCE, _artifact(layer("config.json", b"") | {"size": -1})),
    _row("size of text", R.INVALID_SOURCE, _artifact(layer("config.json", b"") | {"size": "1"})),
    _row("title that leads upwards", R.INVALID_SOURCE, _artifact(layer("../config.json", CONFIG)), says="title"),
    _row("absolute title", R.INVALID_SOURCE, _artifact(layer("/config.json", CONFIG)), says="title"),
    _row("digest that is none", R.INVALID_SOURCE, _artifact(_CONFIG_LAYER | {"digest": "md5:../../x"})),
    _row("title twice", R.INVALID_SOURCE, _artifact(_CONFIG_LAYER, _CONFIG_LAYER), says="twice"),
    _row("a hundred layers", R.TOO_LARGE, _artifact(*[_CONFIG_LAYER] * 100)),
    _row("manifest of five megabytes", R.TOO_LARGE, registry(bytes(5 << 20), {})),
    _row("manifest without end", R.INVALID_SOURCE, registry(b"[" * 200_000, {})),
    _row("manifest of nothing", R.INVALID_SOURCE, registry(b"{}", {})),
    _row(
        "index of many",
        R.INVALID_SOURCE,
        registry(json.dumps({"manifests": [{}, {}]}).encode(), {}),
        says="2 manifests",
    ),
    _row(
        "index of an index",
        R.DIGEST_MISMATCH,
        registry(json.dumps({"manifests": [{"digest": "sha256:" + "0" * 64}]}).encode(), {}),
    ),
    _row(
        "another manifest than the digest's",
        R.DIGEST_MISMATCH,
        _artifact(_CONFIG_LAYER),
        tag="@sha256:" + "1" * 64,
    ),
    _row(
        "tar that leads upwards",
        R.INVALID_SOURCE,
        _artifact(layer("", _ESCAPE, _TAR), **{_key(blob_digest(_ESCAPE)): _ESCAPE}),
    ),
    _row(
        "gzip bomb",
        R.TOO_LARGE,
        _artifact(layer("", _BOMB, f"{_TAR}+gzip"), **{_key(blob_digest(_BOMB)): _BOMB}),
    ),
    _row("zstd", R.INVALID_SOURCE, _artifact(layer("", gzip.compress(b""), f"{_TAR}+zstd")), says="tar+gzip"),
    Hostile(
        "oci: token from the metadata address",
        R.SOURCE_NOT_ALLOWED,
        _token_from_metadata,
        "oci://{host}/team/adapter:v1",
        secret={"username": b"me", "password": b"SECRET"},
    ),
]
