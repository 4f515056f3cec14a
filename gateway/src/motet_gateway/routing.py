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
        views = {key: view for key, view in self.fleet.views.items() if key in known}
        self.table = table
        self._changed(Fleet(table.pods, views))

    def set_view(self, pod: PodKey, view: PodView | None) -> None:
        """What a pod says of itself has changed; None when it is not known any more."""
        if self.fleet.views.get(pod) == view:
            return
        views = {key: other for key, other in self.fleet.views.items() if key != pod}
        self._changed(Fleet(self.table.pods, views if view is None else views | {pod: view}))

    def _changed(self, fleet: Fleet) -> None:
        self.fleet = fleet
        for listener in self._listeners:
            # A listener may change a view itself, so the next is told of what is true by then.
            listener(self.table, self.fleet)
