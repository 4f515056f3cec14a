"""The state of the world as the gateway knows it, in one place, and who is told when it changes.

Sources of the table and the residency poller write here; requests read `table` and `fleet`, both immutable, so that one
request sees one state.
"""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from motet_api.identity import AdapterId
from motet_gateway.fleet import Fleet, PodView
from motet_gateway.table import Expected, Pod, PodKey, Table

_NOTHING: Final[Mapping[AdapterId, Expected]] = {}

Listener = Callable[[Table, Fleet], None]


class Routing:
    """The current table and fleet."""

    def __init__(self) -> None:
        self.table = Table()
        self.fleet = Fleet()
        self.said: dict[PodKey, PodView] = {}
        """What each pod last said, word for word; `fleet` has what of it is believed."""
        self.synced = False
        """Whether a source has read everything once."""
        self._listeners: list[Listener] = []
        self._believed: dict[PodKey, _Belief] = {}

    def listen(self, listener: Listener) -> None:
        """Have `listener` called after every change."""
        self._listeners.append(listener)

    def set_table(self, table: Table) -> None:
        """A source has read a complete new table."""
        self.synced = True
        if table is self.table or table == self.table:
            return
        known = {pod.key for pod in table.all_pods()}
        self.said = {key: view for key, view in self.said.items() if key in known}
        self.table = table
        self._changed()

    def set_view(self, pod: PodKey, view: PodView | None) -> None:
        """What a pod says of itself has changed; None when it is not known any more."""
        if self.said.get(pod) == view:
            return
        if view is None:
            del self.said[pod]
        else:
            self.said[pod] = view
        self._changed()

    def _changed(self) -> None:
        beliefs = {
            pod.key: self._belief(pod) for pods in self.table.pods.values() for pod in pods if pod.key in self.said
        }
        self._believed = beliefs
        self.fleet = Fleet(self.table.pods, {key: belief.view for key, belief in beliefs.items()})
        for listener in self._listeners:
            # A listener may change a view itself, so the next is told of what is true by then.
            listener(self.table, self.fleet)

    def _belief(self, pod: Pod) -> "_Belief":
        # Most changes are of one pod or one model: what others said is not held against the table anew.
        said, expected = self.said[pod.key], self.table.expected.get(pod.model, _NOTHING)
        known = self._believed.get(pod.key)
        if known is not None and known.said is said and known.expected is expected:
            return known
        return _Belief(said, expected, said.believed(expected, loads_for_requests=not pod.reports_at))


class _Belief(NamedTuple):
    said: PodView
    expected: Mapping[AdapterId, Expected]
    view: PodView
