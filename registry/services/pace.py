"""How fast background work goes."""

import asyncio
import time


class Pace:
    """Lets so many a second through, of all tasks together; 0: as many as there are."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._free = 0.0

    def charge(self, amount: int) -> None:
        """Count what was let through; whoever comes next waits for `delay`."""
        if self._rate:
            self._free = max(self._free, time.monotonic()) + amount / self._rate

    @property
    def delay(self) -> float:
        """Seconds until more may go."""
        return max(0.0, self._free - time.monotonic())

    async def take(self, amount: int) -> None:
        """Let something through, and wait until the next may go."""
        if self._rate:
            self.charge(amount)
            await asyncio.sleep(self.delay)
