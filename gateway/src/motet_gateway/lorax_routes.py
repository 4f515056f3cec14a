"""The LoRAX API: `lorax-client` works against it unmodified."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from motet_api.errors import ErrorCode
from motet_api.names import BASE_MODEL_ALIAS
from motet_gateway.asking import asked, passed_headers
from motet_gateway.bodies import parse_body, render_body, text_field
from motet_gateway.errors import RequestRefusedError, UnavailableError
from motet_gateway.exchange import exchange_of
from motet_gateway.proxy import Call, Forwarded, Proxy
from motet_gateway.resolve import resolve_adapter
from motet_gateway.routing import Routing


class LoraxRoutes:
    """Handlers of the LoRAX paths."""

    def __init__(self, routing: Routing, proxy: Proxy) -> None:
        self._routing = routing
        self._proxy = proxy

    def routes(self) -> list[Route]:
        """For the application."""
        return [
            *(Route(path, self.health, methods=["GET"]) for path in ("/", "/health", "/ping")),
            *(
                Route(path, self.generate, methods=["POST"])
                for path in ("/", "/generate", "/generate_stream", "/invocations")
            ),
            Route("/info", self.info, methods=["GET"]),
            Route("/tokenize", self.tokenize, methods=["POST"]),
        ]

    async def health(self, _request: Request) -> Response:
        """Whether this gateway is up and knows what to serve; nothing about any model. LoRAX answers with no body."""
        if not self._routing.synced:
            raise UnavailableError(ErrorCode.NO_READY_POD, "the gateway has not read its routing table yet", 1)
        return Response()

    async def generate(self, request: Request) -> Forwarded:
        """Generate, streaming or not: the pod tells from the path and the body."""
        exchange = exchange_of(request.scope)
        body = parse_body(exchange.take_body())
        parameters = _parameters(body)
        exchange.route = route = resolve_adapter(
            asked(request, text_field(parameters, "adapter_id")), self._routing.table, self._routing.fleet
        )
        body["parameters"] = parameters | {"adapter_id": route.runtime_id or BASE_MODEL_ALIAS}
        call = Call("POST", request.url.path, route, render_body(body), passed_headers(request))
        return self._proxy.queued(call)

    async def info(self, request: Request) -> Forwarded:
        """What a pod of the model says of it."""
        return self._about_base(request, "GET", b"")

    async def tokenize(self, request: Request) -> Forwarded:
        """Tokens of a text, by the base's tokenizer."""
        return self._about_base(request, "POST", render_body(parse_body(exchange_of(request.scope).take_body())))

    def _about_base(self, request: Request, method: str, body: bytes) -> Forwarded:
        route = resolve_adapter(asked(request, ""), self._routing.table, self._routing.fleet)
        exchange_of(request.scope).route = route
        return self._proxy.unqueued(Call(method, request.url.path, route, body, passed_headers(request)))


def _parameters(body: dict[str, Any]) -> dict[str, Any]:
    parameters = body.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise RequestRefusedError(ErrorCode.INVALID_REQUEST, "`parameters` must be an object", param="parameters")
    if parameters.get("merged_adapters") is not None:
        # Passed on, it would be answered by the base.
        raise RequestRefusedError(
            ErrorCode.INVALID_REQUEST, "`merged_adapters` is not supported: name one adapter in `adapter_id`"
        )
    return parameters
