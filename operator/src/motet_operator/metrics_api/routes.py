"""The API's routes. Discovery and probes are open to whoever connects: they say nothing about the cluster."""

import logging
import ssl
from collections.abc import Callable
from datetime import datetime
from typing import Any

from aiohttp import web

from motet_api.names import CUSTOM_METRICS_GROUP, LIVE_PATH, QUEUE_DEPTH_METRIC, READY_PATH
from motet_operator.errors import OperatorError
from motet_operator.metrics_api import documents
from motet_operator.metrics_api.authorization import Access, Authorizer
from motet_operator.metrics_api.demand import DemandBook
from motet_operator.metrics_api.documents import RESOURCE, VERSIONS
from motet_operator.metrics_api.identity import RequestHeaderTrust, User, user_of

log = logging.getLogger(__name__)

_GROUP_PATH = f"/apis/{CUSTOM_METRICS_GROUP}"


class MetricsApi:
    """Answers for one metric of one kind of object."""

    def __init__(
        self,
        book: DemandBook,
        authorizer: Authorizer,
        trust: Callable[[], RequestHeaderTrust],
        now: Callable[[], datetime],
    ) -> None:
        """`trust` gives what is trusted now: the cluster may change it."""
        self._book = book
        self._authorizer = authorizer
        self._trust = trust
        self._now = now

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application()
        value_path = _GROUP_PATH + "/{version}/namespaces/{namespace}/{resource}/{name}/{metric}"
        app.add_routes(
            [
                web.get(LIVE_PATH, self.healthy),
                web.get(READY_PATH, self.healthy),
                web.get("/apis", self.groups),
                web.get(_GROUP_PATH, self.group),
                web.get(_GROUP_PATH + "/{version}", self.resources),
                web.get(value_path, self.value),
                web.route("*", "/{rest:.*}", self.elsewhere),
            ]
        )
        return app

    async def healthy(self, _: web.Request) -> web.Response:
        """The process answers over TLS; whether it has numbers is each request's own answer."""
        return web.Response(text="ok\n")

    async def groups(self, _: web.Request) -> web.Response:
        """Discovery: the group."""
        return web.json_response(documents.group_list())

    async def group(self, _: web.Request) -> web.Response:
        """Discovery: its versions."""
        return web.json_response(documents.group())

    async def resources(self, request: web.Request) -> web.Response:
        """Discovery: the metric."""
        version = request.match_info["version"]
        return web.json_response(documents.resource_list(version)) if version in VERSIONS else _not_found(request.path)

    async def elsewhere(self, request: web.Request) -> web.Response:
        """Any other path."""
        return _not_found(request.path)

    async def value(self, request: web.Request) -> web.Response:
        """The metric of one ModelDeployment."""
        user = self._user(request)
        if user is None:
            return _failure(401, "Unauthorized", "only the API server may ask, with its own client certificate")
        access = Access(**{key: request.match_info[key] for key in Access.__slots__})
        try:
            allowed = await self._authorizer.allowed(user, access)
        except OperatorError as error:
            log.warning("rights cannot be checked: %s", error)
            return _failure(503, "ServiceUnavailable", "the API server does not say whether this is allowed")
        if not allowed:
            return _failure(403, "Forbidden", f"user {user.name!r} may not get {access.resource}/{access.metric}")
        if access.version not in VERSIONS or (access.resource, access.metric) != (RESOURCE, QUEUE_DEPTH_METRIC):
            return _not_found(request.path)
        if request.query.get("metricLabelSelector"):
            return _failure(404, "NotFound", f"{QUEUE_DEPTH_METRIC} has no labels to select by")
        reading = self._book.reading(access.namespace, access.name, self._now())
        if reading is None:
            message = f"{QUEUE_DEPTH_METRIC} of {access.namespace}/{access.name} is not known at present"
            return _failure(404, "NotFound", message)
        return web.json_response(documents.metric_value_list(access.version, access.namespace, access.name, reading))

    def _user(self, request: web.Request) -> User | None:
        transport = request.transport
        tls: Any = transport.get_extra_info("ssl_object") if transport is not None else None
        certificate = tls.getpeercert() if isinstance(tls, ssl.SSLObject) else None
        return user_of(certificate, request.headers, self._trust())


def _not_found(path: str) -> web.Response:
    return _failure(404, "NotFound", f"the server has nothing at {path}")


def _failure(code: int, reason: str, message: str) -> web.Response:
    return web.json_response(documents.failure(code, reason, message), status=code)
