"""The store's HTTP: reads for pods on one port, the operator's questions and orders on another (motet_api.store).

A NetworkPolicy knows ports and no paths, which is why there are two.
"""

import asyncio
import re
from typing import Final, TypeVar

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web_request import BaseRequest
from pydantic import ValidationError

from motet_api.identity import Digest
from motet_api.names import ARTIFACTS_PATH, BASES_PATH, BLOBS_PATH, LIVE_PATH, READY_PATH, REFERENCES_PATH
from motet_api.objects import KubeModel
from motet_api.store import ArtifactManifest, ArtifactReport, ArtifactsAnswer, ArtifactsQuery, References
from motet_api.wire import BaseDescription
from motet_operator.store.answers import Answers
from motet_operator.store.blobs import Blobs
from motet_operator.store.catalogue import Catalogue
from motet_operator.store.metrics import StoreMetrics

_HEX: Final = re.compile(r"[0-9a-f]{64}")
_LARGEST_BODY: Final = 64 << 20
_AT_ONCE: Final = 500
"""Requests of a query that are answered before anybody else has a turn."""
_FOREVER: Final = "public, max-age=31536000, immutable"

Body = TypeVar("Body", bound=KubeModel)


class BlobResponse(web.FileResponse):
    """A blob's bytes. It is kept from being deleted as long as they are sent.

    Its address is its content, so whatever tag or date a client holds, a range is of the same bytes.
    """

    def __init__(self, blobs: Blobs, sha256: str, metrics: StoreMetrics) -> None:
        headers = {"Cache-Control": _FOREVER, "Content-Type": "application/octet-stream"}
        super().__init__(blobs.path(sha256), chunk_size=1 << 20, headers=headers)
        self._blobs = blobs
        self._sha256 = sha256
        self._metrics = metrics

    async def prepare(self, request: BaseRequest) -> AbstractStreamWriter | None:
        """Send it."""
        with self._blobs.using(self._sha256):
            writer = await super().prepare(request)
        self._metrics.blob_asked(self.status)
        return writer


class ReadRoutes:
    """What runtime pods read."""

    def __init__(self, catalogue: Catalogue, blobs: Blobs, metrics: StoreMetrics) -> None:
        self._catalogue = catalogue
        self._blobs = blobs
        self._metrics = metrics

    def application(self) -> web.Application:
        """The routes of the reading port."""
        app = web.Application()
        app.add_routes(
            [
                web.get(LIVE_PATH, self._well),
                # The port opens when what is on disk is known, so whoever answers is ready.
                web.get(READY_PATH, self._well),
                web.get(f"{ARTIFACTS_PATH}/{{digest}}", self._manifest),
                web.get(f"{BLOBS_PATH}/{{sha256}}", self._blob),
            ]
        )
        return app

    async def _well(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _manifest(self, request: web.Request) -> web.Response:
        artifact = self._catalogue.artifacts.get(Digest(request.match_info["digest"]))
        if artifact is None:
            return web.Response(status=404, text="no verified artifact has this digest\n")
        self._catalogue.use(artifact.digest)
        manifest = ArtifactManifest(digest=artifact.digest, kind=artifact.kind, files=artifact.files)
        return web.json_response(text=manifest.model_dump_json(by_alias=True), headers={"Cache-Control": _FOREVER})

    async def _blob(self, request: web.Request) -> web.StreamResponse:
        sha256 = request.match_info["sha256"]
        if not _HEX.fullmatch(sha256) or not self._catalogue.use_blob(sha256):
            self._metrics.blob_asked(404)
            return web.Response(status=404, text="no verified artifact has this blob\n")
        return BlobResponse(self._blobs, sha256, self._metrics)


class AdminRoutes:
    """What the operator asks and says."""

    def __init__(self, catalogue: Catalogue, answers: Answers) -> None:
        self._catalogue = catalogue
        self._answers = answers

    def application(self) -> web.Application:
        """The routes of the operator's port."""
        app = web.Application(client_max_size=_LARGEST_BODY)
        app.add_routes(
            [
                web.post(ARTIFACTS_PATH, self._ask),
                web.put(f"{BASES_PATH}/{{digest}}", self._put_base),
                web.put(REFERENCES_PATH, self._put_references),
            ]
        )
        return app

    async def _ask(self, request: web.Request) -> web.Response:
        query = await _body(request, ArtifactsQuery)
        reports: list[ArtifactReport] = []
        for start in range(0, len(query.artifacts), _AT_ONCE):
            reports += [self._answers.answer(one) for one in query.artifacts[start : start + _AT_ONCE]]
            await asyncio.sleep(0)
        unknown = {one.base_digest for one in query.artifacts if one.base_digest} - self._catalogue.bases.keys()
        answer = ArtifactsAnswer.model_construct(artifacts=reports, unknown_bases=sorted(unknown))
        return web.json_response(body=answer.model_dump_json(by_alias=True, exclude_none=True).encode())

    async def _put_base(self, request: web.Request) -> web.Response:
        base = await _body(request, BaseDescription)
        if base.digest() != request.match_info["digest"]:
            text = f"the description has the digest {base.digest()}: put it there\n"
            raise web.HTTPBadRequest(text=text)
        self._catalogue.put_base(base)
        return web.Response(status=204)

    async def _put_references(self, request: web.Request) -> web.Response:
        references = await _body(request, References)
        self._catalogue.references = frozenset(Digest(digest) for digest in references.digests)
        return web.Response(status=204)


async def _body(request: web.Request, model: type[Body]) -> Body:
    try:
        return model.model_validate_json(await request.read())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise web.HTTPBadRequest(text=f"{where}: {first['msg']}\n") from error
