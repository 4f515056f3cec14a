"""The Lease that says which replica is at work, and what a candidate does about it. Pure.

Invariant: no clock of one machine is compared with that of another. A candidate times with its own steady clock how
long the object has not changed; the times written into it are for people.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

LEASE_API_VERSION: Final = "coordination.k8s.io/v1"


@dataclass(frozen=True, slots=True)
class LeaseName:
    """Where the Lease is."""

    namespace: str
    name: str

    @property
    def collection(self) -> str:
        """Path of the Leases of its namespace."""
        return f"/apis/{LEASE_API_VERSION}/namespaces/{self.namespace}/leases"

    @property
    def path(self) -> str:
        """Path of the Lease."""
        return f"{self.collection}/{self.name}"


@dataclass(frozen=True, slots=True)
class Lease:
    """A Lease as the API server has it."""

    holder: str
    """Identity of who is at work; empty: given back."""
    seconds: float
    """How long the holder may be silent before another may take it."""
    acquired: str
    transitions: int
    version: str
    """Changes with every write; a write must name the one that it replaces."""


class Step(StrEnum):
    """What a candidate does now."""

    CREATE = "create"
    TAKE = "take"
    RENEW = "renew"
    WAIT = "wait"


def next_step(lease: Lease | None, before: Lease | None, me: str, unchanged_seconds: float) -> Step:
    """The step of one candidate. `unchanged_seconds` is for how long it has seen the Lease as it is, or absent;
    `before` is how it was when it was last there.

    | lease   | held by                | unchanged for     | step   |
    |---------|------------------------|-------------------|--------|
    | there   | me                     |                   | RENEW  |
    | there   | nobody                 |                   | TAKE   |
    | there   | another                | its time, or more | TAKE   |
    | there   | another                | less              | WAIT   |
    | absent  | before: me, nobody     |                   | CREATE |
    | absent  | before: never seen     |                   | CREATE |
    | absent  | before: another        | its time, or more | CREATE |
    | absent  | before: another        | less              | WAIT   |

    Two that take it at once name the same version, so the API server refuses the second. Whoever holds a Lease that
    somebody deletes may be at work still, and makes it anew: others leave it the time for that.
    """
    last = lease or before
    if last is not None and last.holder not in {me, ""} and unchanged_seconds < last.seconds:
        return Step.WAIT
    if lease is None:
        return Step.CREATE
    return Step.RENEW if lease.holder == me else Step.TAKE


def read_lease(raw: Mapping[str, Any], default_seconds: float) -> Lease:
    """The Lease in an object; `default_seconds` where it says none."""
    spec = raw.get("spec") or {}
    return Lease(
        holder=spec.get("holderIdentity") or "",
        seconds=float(spec.get("leaseDurationSeconds") or default_seconds),
        acquired=spec.get("acquireTime") or "",
        transitions=spec.get("leaseTransitions") or 0,
        version=raw["metadata"]["resourceVersion"],
    )


def make_lease(name: LeaseName, old: Lease | None, holder: str, seconds: float, now: datetime) -> dict[str, Any]:
    """The object that takes the place of `old`; an empty `holder` gives the Lease back."""
    renewed = now.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    kept = old is not None and old.holder == holder and old.acquired
    taken_over = old is not None and old.holder != holder and bool(holder)
    metadata = {"name": name.name, "namespace": name.namespace}
    return {
        "apiVersion": LEASE_API_VERSION,
        "kind": "Lease",
        "metadata": metadata | ({"resourceVersion": old.version} if old is not None else {}),
        "spec": {
            "holderIdentity": holder,
            "leaseDurationSeconds": max(1, round(seconds)),
            "acquireTime": old.acquired if old is not None and kept else renewed,
            "renewTime": renewed,
            "leaseTransitions": (old.transitions if old is not None else 0) + taken_over,
        },
    }
