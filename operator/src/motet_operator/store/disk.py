"""How many bytes the store has on disk, against how many it may have.

Invariant: the sum of what is held never exceeds the limit; a file is held before its bytes are written.
"""

from collections.abc import Callable

from motet_api.reasons import AdapterReason
from motet_operator.store.errors import StoreError


class Disk:
    """Counts files by name. `make_room` is asked to delete at least so many bytes, and may not be able to."""

    def __init__(self, limit: int, make_room: Callable[[int], None] = lambda missing: None) -> None:
        self.limit = limit
        self.make_room = make_room
        self._held: dict[str, int] = {}
        self.used = 0

    def found(self, name: str, size: int) -> None:
        """A file that is there already, whether or not it fits."""
        self.used += size - self._held.get(name, 0)
        self._held[name] = size

    def hold(self, name: str, size: int) -> None:
        """Set a file's bytes, before they are written.

        Raises:
            StoreError: there is no room; says how many bytes are missing.
        """
        missing = self._missing(name, size)
        if missing > 0:
            self.make_room(missing)
            missing = self._missing(name, size)
        if missing > 0:
            message = (
                f"{missing} bytes are missing: {self.used} of the store's {self.limit} are in use, and nothing that may"
                f" be deleted is left. Give the store more room (chart value store.persistence.size) or remove versions"
            )
            raise StoreError(AdapterReason.STORE_FULL, message)
        self.found(name, size)

    def release(self, name: str) -> None:
        """The file is gone."""
        self.used -= self._held.pop(name, 0)

    def _missing(self, name: str, size: int) -> int:
        return self.used + size - self._held.get(name, 0) - self.limit
