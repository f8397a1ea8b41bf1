"""Rate limiting of background work."""

import asyncio
import time


class Throttle:
    """A rate limit per second, shared by all tasks. A rate of 0 is no limit."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._free = 0.0

    def charge(self, amount: int) -> None:
        """Count an amount of completed work. It increases `delay`."""
        if self._rate:
            self._free = max(self._free, time.monotonic()) + amount / self._rate

    @property
    def delay(self) -> float:
        """Seconds to wait before the next work."""
        return max(0.0, self._free - time.monotonic())

    async def take(self, amount: int) -> None:
        """Count an amount of work, and wait until more is allowed."""
        if self._rate:
            self.charge(amount)
            await asyncio.sleep(self.delay)
