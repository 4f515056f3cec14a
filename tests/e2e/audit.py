"""The API server's audit log, read as: who did what to which kind of object, and was it allowed."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from demo_lib.installation import NAMESPACE, RELEASE

PARTS = ("operator", "gateway", "metrics-api", "store")
ACCOUNTS = {f"system:serviceaccount:{NAMESPACE}:{RELEASE}-{part}": part for part in PARTS}
WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
NO_STATE = frozenset({"authorization.k8s.io", "authentication.k8s.io", "coordination.k8s.io"})
"""Groups whose objects are questions, or the sign of life of whoever leads: they say nothing of what is served."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request of one of our parts."""

    part: str
    verb: str
    group: str
    resource: str
    """With the subresource, as a rule names it: `loraadapters/status`."""
    namespace: str
    name: str
    status: int
    allowed: bool
    """By RBAC. An allowed request can still be refused: whatever is new is, in a namespace that is going away."""
    at: datetime

    @property
    def verbs(self) -> set[str]:
        """The rights it took: an apply that made a new object is authorised as a create as well."""
        return {self.verb, "create"} if self.verb == "patch" and self.status == 201 else {self.verb}

    @property
    def writes(self) -> bool:
        """Whether the request changes what the system is to do or says of itself."""
        return self.verb in WRITES and self.group not in NO_STATE


def calls(log: Path) -> Iterator[Call]:
    """Every request that one of the chart's accounts made for an object."""
    with log.open() as lines:
        for line in lines:
            if "system:serviceaccount:" not in line or not line.endswith("\n"):
                continue
            entry = json.loads(line)
            part = ACCOUNTS.get(entry["user"]["username"])
            target = entry.get("objectRef")
            if part is None or target is None:
                continue
            resource = target["resource"] + (f"/{target['subresource']}" if "subresource" in target else "")
            yield Call(
                part=part,
                verb=entry["verb"],
                group=target.get("apiGroup", ""),
                resource=resource,
                namespace=target.get("namespace", ""),
                name=target.get("name", ""),
                status=entry.get("responseStatus", {}).get("code", 0),
                allowed=entry.get("annotations", {}).get("authorization.k8s.io/decision") == "allow",
                at=datetime.fromisoformat(entry["stageTimestamp"]),
            )
