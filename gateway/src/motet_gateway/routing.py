"""The state of the world as the gateway knows it, in one place, and who is told when it changes.

Sources of the table and the residency poller write here; requests read `table` and `fleet`, both immutable, so that one
request sees one state.
"""

from collections.abc import Callable

from motet_gateway.fleet import Fleet, PodView
from motet_gateway.table import PodKey, Table

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

    def listen(self, listener: Listener) -> None:
        """Have `listener` called after every change."""
        self._listeners.append(listener)

    def set_table(self, table: Table) -> None:
        """A source has read a complete new table."""
        self.synced = True
        if table == self.table:
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
        views: dict[PodKey, PodView] = {}
        for model, pods in self.table.pods.items():
            expected = self.table.sources_of(model)
            views |= {pod.key: self.said[pod.key].believed(expected) for pod in pods if pod.key in self.said}
        self.fleet = Fleet(self.table.pods, views)
        for listener in self._listeners:
            # A listener may change a view itself, so the next is told of what is true by then.
            listener(self.table, self.fleet)
