"""Whether a transfer is fast enough: time spent waiting for the source against the bytes it gave. Pure."""

from motet_operator.store.sources.contract import Limits


class Pace:
    """Counts one transfer. The consumer's own time (a slow disk) is not held against the source."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._total = 0.0
        self._span = 0.0
        self._bytes = 0

    def complaint(self, waited: float, received: int) -> str | None:
        """After a chunk that took `waited` seconds to come: what is wrong with the transfer, if anything."""
        self._total += waited
        self._span += waited
        self._bytes += received
        if self._total > self._limits.total_seconds:
            return f"took longer than {self._limits.total_seconds:g} s"
        if self._span >= self._limits.idle_seconds:
            rate = self._bytes / self._span
            if rate < self._limits.min_bytes_per_second:
                return f"came at {rate:.0f} bytes/s, below the minimum of {self._limits.min_bytes_per_second}"
            self._span, self._bytes = 0.0, 0
        return None
