"""How fast bytes are worked through in the background."""

import asyncio
import time


class Pace:
    """Lets so many bytes a second through, of all tasks together; 0: as many as there are."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._free = 0.0

    async def take(self, amount: int) -> None:
        if self._rate:
            self._free = max(self._free, time.monotonic()) + amount / self._rate
            await asyncio.sleep(self._free - time.monotonic())
