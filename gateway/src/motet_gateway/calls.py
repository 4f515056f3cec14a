"""What is sent to a pod, and to which version."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from motet_api.errors import speaks_lorax
from motet_api.names import BASE_MODEL_ALIAS
from motet_gateway.bodies import parse_body, render_body
from motet_gateway.errors import GatewayError
from motet_gateway.resolve import Route


@dataclass(frozen=True, slots=True)
class Call:
    """A request for a pod. `again` resolves the name that the client gave by the present table."""

    method: str
    path: str
    route: Route
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    again: Callable[[], Route] | None = None

    def moved(self) -> "Call | None":
        """The call to the version that the split chooses now; None if it is the same, or if the client named it."""
        if self.again is None or not self.route.by_split:
            return None
        try:
            route = self.again()
        except GatewayError:
            return None
        same = (route.model.key, route.runtime_id) == (self.route.model.key, self.route.runtime_id)
        return None if same else self.to(route)

    def to(self, route: Route) -> "Call":
        """The same call to another version."""
        body = named(parse_body(self.body), self.path, route.runtime_id or BASE_MODEL_ALIAS)
        return dataclasses.replace(self, route=route, body=render_body(body))

    def copy_to(self, route: Route) -> "Call":
        """The same call to another version, for an answer in one piece."""
        body = named(parse_body(self.body), self.path, route.runtime_id or BASE_MODEL_ALIAS)
        if "stream" in body:
            body["stream"] = False
        body.pop("stream_options", None)
        path = "/generate" if self.path == "/generate_stream" else self.path
        return dataclasses.replace(self, path=path, route=route, body=render_body(body), again=None)


def named(body: dict[str, Any], path: str, name: str) -> dict[str, Any]:
    """The body with the version named as pods call it, where the API of the path has it."""
    if speaks_lorax(path):
        return body | {"parameters": (body.get("parameters") or {}) | {"adapter_id": name}}
    return body | {"model": name}
