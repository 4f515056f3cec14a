"""A small server that answers the two calls of the Hugging Face hub's API that a listing and a download make.

No hub can be installed, so this one stands in for it: `/api/models/{repo}/revision/{revision}?blobs=true` and
`/{repo}/resolve/{commit}/{file}`, with weights on a content network of another origin, as the real one has them. The
tests let huggingface_hub itself read it too, so that it is no fiction of our own reader.
"""

import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from tests.operator.store_sources.servers import Served, folder, served

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER_COMMIT = "f" * 40


@dataclass
class Hub:
    """One repository, `org/adapter`. `token` is asked for where it is given; `moved` is where weights lie."""

    files: dict[str, bytes]
    token: str = ""
    revisions: dict[str, str] = field(default_factory=lambda: {"main": COMMIT, COMMIT: COMMIT})
    moved: str = ""
    changes: dict[str, object] = field(default_factory=dict)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response({"error": "gated"}, status=401, headers={"X-Error-Code": "GatedRepo"})
        path = request.path.removeprefix("/")
        if path.startswith("api/models/org/adapter/revision/"):
            commit = self.revisions.get(path.rpartition("/")[2])
            if commit is None:
                return web.json_response({"error": "no revision"}, status=404)
            return web.json_response(self._info(commit))
        name = path.removeprefix(f"org/adapter/resolve/{COMMIT}/")
        if name not in self.files:
            return web.Response(status=404)
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{_oid(self.files[name])}"'}
        if name.endswith((".safetensors", ".bin")):
            return web.Response(status=302, headers=headers | {"Location": f"{self.moved}/{name}?Signature=s"})
        return web.Response(body=self.files[name], headers=headers)

    def _info(self, commit: str) -> Mapping[str, object]:
        siblings = [self._sibling(name, data) for name, data in self.files.items()]
        return (
            {"id": "org/adapter", "modelId": "org/adapter", "sha": commit, "private": False, "tags": []}
            | {
                "downloads": 0,
                "likes": 0,
                "siblings": siblings,
            }
            | self.changes
        )

    def _sibling(self, name: str, data: bytes) -> dict[str, object]:
        entry: dict[str, object] = {"rfilename": name, "size": len(data), "blobId": _oid(data)}
        if name.endswith((".safetensors", ".bin")):
            digest = hashlib.sha256(data).hexdigest()
            entry["lfs"] = {"sha256": digest, "size": len(data), "pointerSize": 134}
        return entry


def _oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@asynccontextmanager
async def hub(files: dict[str, bytes], token: str = "") -> AsyncIterator[tuple[Hub, Served, Served]]:
    """The hub, its server, and the server of its content network."""
    made = Hub(files, token)
    async with served(folder(files)) as network, served(made.answer) as server:
        made.moved = network.url
        yield made, server, network
