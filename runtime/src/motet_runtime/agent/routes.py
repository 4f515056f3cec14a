"""What the agent answers: the operator and the probes on the admin port, and on another one whoever may only read."""

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from motet_api.errors import ErrorCode
from motet_api.names import ADAPTERS_PATH, BASE_PATH, LIVE_PATH, READY_PATH
from motet_api.wire import DesiredAdapters
from motet_runtime.agent.sidecar import Sidecar
from motet_runtime.errors import RequestError
from motet_runtime.http.answers import Json, on_crash, on_http_exception, on_request_error, parse_body


def make_apps(sidecar: Sidecar, registry: CollectorRegistry) -> tuple[Starlette, Starlette]:
    """The application of the admin port, and the one that changes nothing."""

    async def get_adapters(_: Request) -> Response:
        return Json(sidecar.report().to_wire())

    async def put_adapters(request: Request) -> Response:
        document = await parse_body(request, DesiredAdapters)
        ids = [adapter.id for adapter in document.adapters]
        if len(set(ids)) < len(ids):
            raise RequestError(ErrorCode.INVALID_REQUEST, "adapters: an id is listed twice: list each once", "adapters")
        sidecar.want(document)
        return Json(sidecar.report().to_wire())

    async def get_base(_: Request) -> Response:
        if sidecar.base is None:
            raise RequestError(ErrorCode.NOT_FOUND, "the base's files are not to be seen here: start with --model")
        return Json(sidecar.base.to_wire())

    async def live(_: Request) -> Response:
        # About the agent alone: the engine has probes of its own.
        return Json({"live": True})

    async def ready(_: Request) -> Response:
        reason = sidecar.not_ready_because()
        return Json({"ready": reason is None, "reason": reason}, 200 if reason is None else 503)

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    reading = [
        Route(ADAPTERS_PATH, get_adapters, methods=["GET"]),
        Route(BASE_PATH, get_base, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
    ]
    ordering = [
        Route(ADAPTERS_PATH, put_adapters, methods=["PUT"]),
        Route(LIVE_PATH, live, methods=["GET"]),
        Route(READY_PATH, ready, methods=["GET"]),
    ]
    handlers = {RequestError: on_request_error, HTTPException: on_http_exception, Exception: on_crash}
    return (
        Starlette(routes=[*reading, *ordering], exception_handlers=handlers),
        Starlette(routes=reading, exception_handlers=handlers),
    )
