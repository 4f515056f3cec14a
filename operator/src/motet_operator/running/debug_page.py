"""`/debug/keys`: where each key is, how its last pass ended and what it decided. For people, and for the admin port."""

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Protocol

from aiohttp import web

from motet_operator.keys import ModelKey
from motet_operator.running.journal import Outcome
from motet_operator.running.queue import KeyState, Place

KEYS_PATH = "/debug/keys"


class Places(Protocol):
    """Knows where keys are."""

    def places(self) -> Iterable[tuple[ModelKey, Place]]:
        """Every key that is anywhere."""
        ...


class Outcomes(Protocol):
    """Knows how passes ended."""

    def of(self, key: ModelKey) -> Outcome | None:
        """The outcome of one key."""
        ...


class Keys(Protocol):
    """Knows which keys there are."""

    def models(self) -> Iterable[ModelKey]:
        """Every key that anything belongs to."""
        ...


def make_debug_page(
    keys: Keys, places: Places, outcomes: Outcomes, leads: Callable[[], bool], now: Callable[[], datetime]
) -> web.Application:
    """The page; `?namespace=` and `?name=` choose."""

    async def page(request: web.Request) -> web.Response:
        unknown = sorted(set(request.query) - {"namespace", "name"})
        if unknown:
            raise web.HTTPBadRequest(text=f"{unknown[0]}: not a parameter of this page; it takes namespace and name\n")
        where = dict(places.places())
        chosen = [key for key in sorted({*keys.models(), *where}) if _matches(key, request.query)]
        if not chosen and request.query:
            raise web.HTTPNotFound(text="no such key: see the whole page, without parameters\n")
        entries = [_entry(key, where.get(key), outcomes.of(key), now()) for key in chosen]
        return _readable({"leads": leads(), "count": len(entries), "keys": entries})

    app = web.Application()
    app.add_routes([web.get(KEYS_PATH, page)])
    return app


def _matches(key: ModelKey, query: Mapping[str, str]) -> bool:
    return query.get("namespace", key.namespace) == key.namespace and query.get("name", key.name) == key.name


def _entry(key: ModelKey, place: Place | None, outcome: Outcome | None, now: datetime) -> dict[str, Any]:
    entry: dict[str, Any] = {"namespace": key.namespace, "name": key.name, **_place(place)}
    if outcome is not None and outcome.ended is not None:
        entry["lastPass"] = {
            "result": outcome.result,
            "seconds": round(outcome.seconds, 3),
            "endedSecondsAgo": round((now - outcome.ended).total_seconds(), 1),
            **({"error": outcome.error} if outcome.error else {}),
        }
    if outcome is not None and outcome.decided is not None:
        entry["lastDecision"] = {
            "secondsAgo": round((now - outcome.decided).total_seconds(), 1),
            "actions": outcome.actions,
        }
    if outcome is not None and outcome.acted is not None:
        entry["lastActions"] = {
            "secondsAgo": round((now - outcome.acted).total_seconds(), 1),
            "actions": list(outcome.reasons),
        }
    return entry


def _place(place: Place | None) -> dict[str, Any]:
    if place is None:
        return {"state": "idle", "failures": 0}
    field = "dueInSeconds" if place.state is KeyState.LATER else "forSeconds"
    return {"state": place.state, field: round(place.seconds, 1), "failures": place.failures}


def _readable(document: dict[str, Any]) -> web.Response:
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    return web.Response(text=text, content_type="application/json")
