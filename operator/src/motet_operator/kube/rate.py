"""How fast the API server may be called: a bucket of tokens, and a pause where the API server asks for one."""

from collections.abc import Awaitable, Callable


class RateLimit:
    """`rate` calls a second on average, `burst` at once after a quiet time; first come, first served."""

    def __init__(
        self, rate: float, burst: int, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        """`clock` is steady seconds."""
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._sleep = sleep
        self._tokens = float(burst)
        self._counted_at = clock()
        self._paused_until = clock()

    async def take(self) -> float:
        """Wait for one's turn; returns the seconds waited."""
        began = self._clock()
        self._tokens = min(self._burst, self._tokens + (began - self._counted_at) * self._rate) - 1
        self._counted_at = began
        # Below zero, a token is one that comes later: each caller has its own, so that none is overtaken.
        due = began + max(0.0, -self._tokens / self._rate)
        while (left := max(due, self._paused_until) - self._clock()) > 0:
            await self._sleep(left)
        return self._clock() - began

    def pause(self, seconds: float) -> None:
        """Nobody calls for so long."""
        self._paused_until = max(self._paused_until, self._clock() + seconds)
