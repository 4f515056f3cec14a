"""Tells the adapter store, again and again, what it must not delete: every digest that anything names.

But not what a version names that is beyond its namespace's quota: the store is no way around it.
"""

import logging
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, NoReturn, Protocol

from motet_api.identity import DIGEST_PATTERN
from motet_api.modeldeployment import ModelDeploymentSpec
from motet_api.store import References
from motet_operator.adapters.quota import Beyond
from motet_operator.errors import SilentStoreError
from motet_operator.keys import Kind
from motet_operator.kube.index import Index
from motet_operator.views import Declared, Pod

log = logging.getLogger(__name__)

REFERENCES_SECONDS: Final = 30.0
_NOT_BEYOND: Final = Beyond()
_DIGEST: Final = re.compile(DIGEST_PATTERN)


class ReferenceTaker(Protocol):
    """The store, as far as references go."""

    async def put_references(self, references: References) -> None:
        """Say what must not be deleted. Raises: SilentStoreError."""
        ...


class ReferenceLoop:
    """Only the leader sends, and only once the index is complete: what is not listed yet is not unused."""

    def __init__(
        self,
        store: ReferenceTaker,
        index: Index,
        leads: Callable[[], bool],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._store = store
        self._index = index
        self._leads = leads
        self._sleep = sleep

    async def run(self) -> NoReturn:
        """Send for ever."""
        while True:
            if self._leads():
                await self.send()
            await self._sleep(REFERENCES_SECONDS)

    async def send(self) -> None:
        """Send once. A store that does not answer deletes nothing that it was told of before."""
        try:
            await self._store.put_references(References(digests=sorted(set(_digests(self._index)))))
        except SilentStoreError as error:
            log.warning("the adapter store was not told what is in use: %s", error)


def _digests(index: Index) -> Iterator[str]:
    for view in (*index.views(Kind.LORA_ADAPTER), *index.views(Kind.MODEL_DEPLOYMENT)):
        if isinstance(view, Declared):
            beyond = index.usage.refused(view.meta.namespace).get(view.meta.name, _NOT_BEYOND)
            yield from (digest for digest in _named(view, beyond) if digest and _DIGEST.match(digest))
    # A pod of an earlier template fetches its base anew when it is made anew, until the roll is over.
    for pod in index.views(Kind.POD):
        if isinstance(pod, Pod) and _DIGEST.match(pod.base):
            yield pod.base


def _named(view: Declared, beyond: Beyond) -> Iterator[str | None]:  # type: ignore[type-arg]
    """Digests in one object, in spec and in status."""
    spec, status = view.spec, view.status
    if isinstance(spec, ModelDeploymentSpec):
        yield spec.model.source.digest
        yield status.source.digest if status is not None and status.source is not None else None
        return
    for version in spec.versions if spec is not None else []:
        yield version.source.digest if not beyond.of(version.name) else None
    for left in status.versions if status is not None else []:
        if beyond.of(left.name):
            continue
        yield left.digest
        yield left.source.digest if left.source is not None else None
