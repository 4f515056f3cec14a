"""Sums of the gateways' demand, or nothing. Pure but for what it is told.

Invariant: a sum is given only if every gateway that takes requests has told its share within `max_age` seconds. A share
that is missing or old makes the sum unknown: an autoscaler that is told nothing holds, one that is told too little
kills pods that are needed.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from motet_api.wire import Demand


@dataclass(frozen=True, slots=True, order=True)
class Gateway:
    """One gateway pod. `ready` ones take new requests; the others only finish those that they have."""

    url: str
    ready: bool = True


@dataclass(frozen=True, slots=True)
class Reading:
    """Requests of one model, waiting and running, at all gateways. `at` is when the oldest share was heard."""

    value: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Share:
    """What one gateway said: requests by namespace and name."""

    at: datetime
    requests: dict[tuple[str, str], int]


class DemandBook:
    """The last word of each gateway."""

    def __init__(self, max_age_seconds: float) -> None:
        self._max_age = timedelta(seconds=max_age_seconds)
        self._gateways: frozenset[Gateway] = frozenset()
        self._gateways_at: datetime | None = None
        self._shares: dict[str, Share] = {}

    def set_gateways(self, gateways: Collection[Gateway], now: datetime) -> None:
        """These are the gateways, as the API server knows them now."""
        self._gateways = frozenset(gateways)
        self._gateways_at = now
        urls = {gateway.url for gateway in gateways}
        self._shares = {url: share for url, share in self._shares.items() if url in urls}

    def heard(self, gateway: Gateway, demand: Demand, now: datetime) -> None:
        """A gateway has told its share. Its age is judged by our clock, not by the gateway's."""
        requests = {(model.namespace, model.name): model.waiting + model.running for model in demand.models}
        self._shares[gateway.url] = Share(now, requests)

    def reading(self, namespace: str, name: str, now: datetime) -> Reading | None:
        """The sum for one model; None where it is not known."""
        if self._gateways_at is None or now - self._gateways_at > self._max_age:
            return None
        if not any(gateway.ready for gateway in self._gateways):
            return None
        shares: list[tuple[datetime, int]] = []
        for gateway in self._gateways:
            share = self._shares.get(gateway.url)
            known = share is not None and now - share.at <= self._max_age and (namespace, name) in share.requests
            if share is not None and known:
                shares.append((share.at, share.requests[namespace, name]))
            elif gateway.ready:
                return None
        return Reading(sum(value for _, value in shares), min(at for at, _ in shares))
