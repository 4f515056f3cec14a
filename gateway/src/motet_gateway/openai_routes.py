"""The OpenAI API: completions, chat, and the list of what may be named as `model`."""

from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as HttpRoute

from motet_api.errors import ErrorCode
from motet_gateway.asking import asked, passed_headers
from motet_gateway.bodies import parse_body, render_body, text_field
from motet_gateway.calls import Call, named
from motet_gateway.errors import RequestRefusedError
from motet_gateway.exchange import exchange_of
from motet_gateway.fleet import Fleet
from motet_gateway.proxy import Forwarded, Proxy
from motet_gateway.resolve import Asked, Route, resolve_model
from motet_gateway.routing import Routing
from motet_gateway.suggestions import suggest
from motet_gateway.table import Adapter, Table


class OpenAIRoutes:
    """Handlers of the OpenAI paths."""

    def __init__(self, routing: Routing, proxy: Proxy) -> None:
        self._routing = routing
        self._proxy = proxy

    def routes(self) -> list[HttpRoute]:
        """For the application."""
        return [
            HttpRoute("/v1/completions", self.complete, methods=["POST"]),
            HttpRoute("/v1/chat/completions", self.complete, methods=["POST"]),
            HttpRoute("/v1/classify", self.complete, methods=["POST"]),
            HttpRoute("/v1/models", self.models, methods=["GET"]),
            HttpRoute("/v1/models/{name:path}", self.model, methods=["GET"]),
        ]

    async def complete(self, request: Request) -> Forwarded:
        """A completion, streaming or not, or a classification: the pod tells from the path and the body."""
        exchange = exchange_of(request.scope)
        body = parse_body(exchange.take_body())
        path, where = request.url.path, asked(request, text_field(body, "model"), body.get("user"))
        exchange.route = route = self._resolve(where)
        name = route.runtime_id or self._routing.fleet.base_name(route.model.key)
        rendered = render_body(named(body, path, name))
        again = partial(self._resolve, where)
        return self._proxy.queued(Call("POST", path, route, rendered, passed_headers(request), again))

    def _resolve(self, where: Asked) -> Route:
        return resolve_model(where, self._routing.table, self._routing.fleet)

    async def models(self, _request: Request) -> Response:
        """Everything that a request may name."""
        return JSONResponse({"object": "list", "data": catalogue(self._routing.table, self._routing.fleet)})

    async def model(self, request: Request) -> Response:
        """One entry of the list."""
        name = request.path_params["name"]
        entries = {entry["id"]: entry for entry in catalogue(self._routing.table, self._routing.fleet)}
        if name not in entries:
            raise RequestRefusedError(
                ErrorCode.MODEL_NOT_FOUND, f"no model {name!r} is served{suggest(name, entries)}", param="model"
            )
        return JSONResponse(entries[name])


def catalogue(table: Table, fleet: Fleet) -> list[dict[str, Any]]:
    """The bases, the adapters, and each version, as OpenAI model objects.

    `id` is the shortest name that reaches it, `parent` what it builds on (an adapter's base, a version's adapter), and
    `ready` whether a request would be answered now without waiting for anything to load.
    """
    entries = []
    for model in table.models.values():
        ready = bool(fleet.serving(model.key, None))
        entries.append(_entry(table.public_name(model), model.created, None, ready))
    for adapter in table.adapters.values():
        entries += _adapter_entries(adapter, table, fleet)
    return sorted(entries, key=lambda entry: str(entry["id"]))


def _adapter_entries(adapter: Adapter, table: Table, fleet: Fleet) -> list[dict[str, Any]]:
    name = table.public_name(adapter)
    base = table.models.get(adapter.model)
    parent = table.public_name(base) if base is not None else str(adapter.model)
    ready = {
        version: bool(fleet.tiers(adapter.model_of(version), adapter.runtime_id(version)).resident)
        for version in adapter.versions
    }
    answers = any(share.weight > 0 and ready.get(share.version, False) for share in adapter.traffic)
    return [
        _entry(name, adapter.created, parent, answers),
        *(_entry(f"{name}@{version}", adapter.created, name, ready[version]) for version in adapter.versions),
    ]


def _entry(name: str, created: int, parent: str | None, ready: bool) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "motet", "parent": parent, "ready": ready}
