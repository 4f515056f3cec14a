"""What this process has applied, so that it need not do so again. Lost at a restart: one more apply of each child."""

from motet_operator.keys import Kind, ModelKey
from motet_operator.snapshot import Applied


class AppliedMemory:
    """Last writes by ModelDeployment and kind."""

    def __init__(self) -> None:
        self._last: dict[ModelKey, dict[Kind, Applied]] = {}

    def of(self, key: ModelKey) -> dict[Kind, Applied]:
        """All of one ModelDeployment."""
        return dict(self._last.get(key, {}))

    def remember(self, key: ModelKey, kind: Kind, applied: Applied) -> None:
        """A child was applied."""
        self._last.setdefault(key, {})[kind] = applied

    def forget(self, key: ModelKey) -> None:
        """The ModelDeployment is gone."""
        self._last.pop(key, None)

    def forget_all(self) -> None:
        """Another process may have written in between."""
        self._last.clear()
