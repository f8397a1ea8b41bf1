"""The memory that parts of uploads may take in this process."""

import asyncio
import time

PATIENCE = 120.0
"""Seconds that a buffer may take to be filled while others wait for one."""


class Buffers:
    """A number of byte arrays as long as a part, used again and again: freed and taken anew they
    would leave holes of their size.
    """

    def __init__(self, count: int, size: int) -> None:
        self.size = size
        self._free = asyncio.Semaphore(count)
        self._kept: list[bytearray] = []
        self._waiting = 0

    async def take(self, size: int) -> bytearray:
        """Wait for a buffer of `size` bytes, which is that of the session's parts."""
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        return self._kept.pop() if self._kept and size == self.size else bytearray(size)

    def is_overdue(self, since: float) -> bool:
        """Whether who began to fill a buffer at `since`, of `time.monotonic`, must let others."""
        return self._waiting > 0 and time.monotonic() - since > PATIENCE

    def give_back(self, buffer: bytearray) -> None:
        if len(buffer) == self.size:
            self._kept.append(buffer)
        self._free.release()
