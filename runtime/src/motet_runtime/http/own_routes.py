"""Routes of our own: for the operator and the kubelet on the admin port, for the gateway on the serving port."""

import asyncio
import time

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from motet_api.errors import ErrorCode
from motet_api.names import ADAPTERS_PATH, BASE_PATH, DRAIN_PATH, LIVE_PATH, READY_PATH
from motet_api.wire import DesiredAdapters
from motet_runtime.errors import RequestError
from motet_runtime.http.answers import Json, parse_body
from motet_runtime.lifecycle import STALLED_SECONDS
from motet_runtime.service import Service


class OwnRoutes:
    """`/motet/v1/...`, the probes and the metrics."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._drains: set[asyncio.Task[bool]] = set()

    def serving_routes(self) -> list[Route]:
        """For the serving port: nothing that changes anything."""
        return [
            Route(ADAPTERS_PATH, self.get_adapters, methods=["GET"]),
            Route(BASE_PATH, self.get_base, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
        ]

    def admin_routes(self) -> list[Route]:
        """For the admin port."""
        return [
            Route(ADAPTERS_PATH, self.get_adapters, methods=["GET"]),
            Route(ADAPTERS_PATH, self.put_adapters, methods=["PUT"]),
            Route(BASE_PATH, self.get_base, methods=["GET"]),
            Route(DRAIN_PATH, self.get_drain, methods=["GET"]),
            Route(DRAIN_PATH, self.post_drain, methods=["POST"]),
            Route(LIVE_PATH, self.live, methods=["GET"]),
            Route(READY_PATH, self.ready, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
        ]

    async def get_adapters(self, _: Request) -> Response:
        """What this pod holds."""
        return Json(self._service.report().to_wire())

    async def get_base(self, _: Request) -> Response:
        """What an adapter must fit."""
        return Json(self._service.base.description.to_wire())

    async def put_adapters(self, request: Request) -> Response:
        """Take in the desired document; answers with what is held now, not with what will be."""
        document = await parse_body(request, DesiredAdapters)
        ids = [adapter.id for adapter in document.adapters]
        if len(set(ids)) < len(ids):
            raise RequestError(ErrorCode.INVALID_REQUEST, "adapters: an id is listed twice: list each once", "adapters")
        self._service.residency.set_desired(document)
        return Json(self._service.report().to_wire())

    async def get_drain(self, _: Request) -> Response:
        """Whether the pod is on its way out, and what is still in flight."""
        lifecycle = self._service.lifecycle
        return Json({"draining": lifecycle.draining, "inFlight": lifecycle.in_flight})

    async def post_drain(self, request: Request) -> Response:
        """Start draining without ending the process."""
        if not self._service.lifecycle.draining:
            settings = self._service.settings
            self._service.lifecycle.start_draining()
            drain = self._service.lifecycle.drain(settings.drain_grace_seconds, settings.drain_timeout_seconds)
            self._drains.add(asyncio.create_task(drain))
        return await self.get_drain(request)

    async def live(self, _: Request) -> Response:
        """Whether the engine's loop turns; while the base loads there is none, and that is fine."""
        try:
            gauges = self._service.base.engine.gauges
        except RequestError:
            return Json({"live": True})
        if gauges.failed:
            return Json({"live": False, "reason": "the engine's loop failed: see the log"}, 503)
        beat = gauges.last_beat
        age = time.monotonic() - beat
        return Json(
            {"live": age < STALLED_SECONDS, "secondsSinceStep": round(age, 1)}, 200 if age < STALLED_SECONDS else 503
        )

    async def ready(self, _: Request) -> Response:
        """Whether requests should be sent here."""
        reason = self._service.not_ready_because()
        return Json({"ready": reason is None, "reason": reason}, 200 if reason is None else 503)

    async def metrics(self, _: Request) -> Response:
        """Prometheus text."""
        metrics = self._service.metrics
        resident = self._service.residency.resident()
        metrics.adapters_resident.set(len(resident))
        metrics.adapter_bytes_used.set(self._service.adapter_bytes_used())
        metrics.forget_adapters(resident)
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)
