"""May they: asks the API server by SubjectAccessReview, and remembers the answer for a few seconds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from motet_api.names import CUSTOM_METRICS_GROUP
from motet_operator.metrics_api.identity import User

REMEMBER_SECONDS: Final = 10.0
_REVIEWS: Final = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
_MASTERS: Final = "system:masters"
_MOST_ANSWERS: Final = 4096


@dataclass(frozen=True, slots=True)
class Access:
    """What somebody wants to read."""

    version: str
    namespace: str
    resource: str
    name: str
    metric: str


class Reviewer(Protocol):
    """Posts a review."""

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The review with its status. Raises: UnavailableError, RefusedError."""
        ...


class Authorizer:
    """`clock` is monotonic seconds."""

    def __init__(self, reviewer: Reviewer, clock: Callable[[], float]) -> None:
        self._reviewer = reviewer
        self._clock = clock
        self._answers: dict[tuple[User, Access], tuple[float, bool]] = {}

    async def allowed(self, user: User, access: Access) -> bool:
        """Whether the user may read it. Raises: UnavailableError, RefusedError."""
        if _MASTERS in user.groups:
            return True
        known = self._answers.get((user, access))
        if known is not None and self._clock() < known[0]:
            return known[1]
        review = await self._reviewer.create(_REVIEWS, _review(user, access))
        answer = bool((review.get("status") or {}).get("allowed"))
        if len(self._answers) >= _MOST_ANSWERS:
            self._answers.clear()
        self._answers[user, access] = (self._clock() + REMEMBER_SECONDS, answer)
        return answer


def _review(user: User, access: Access) -> dict[str, Any]:
    attributes = {
        "group": CUSTOM_METRICS_GROUP,
        "version": access.version,
        "namespace": access.namespace,
        "resource": access.resource,
        "subresource": access.metric,
        "name": access.name,
        "verb": "get",
    }
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user.name, "groups": list(user.groups), "resourceAttributes": attributes},
    }
