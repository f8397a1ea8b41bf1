"""The memory that parts of uploads may take in this process."""

import asyncio
import contextlib
import time
from collections.abc import Iterator

from storage.errors import StoreUnavailableError

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
        self._waiting: set[asyncio.Timeout] = set()

    async def take(self, size: int) -> bytearray:
        """Wait for a buffer of `size` bytes, which is that of the session's parts, unless others
        cannot make use of theirs meanwhile: StoreUnavailableError.
        """
        try:
            async with asyncio.timeout(None) as turn:
                self._waiting.add(turn)
                try:
                    await self._free.acquire()
                finally:
                    self._waiting.discard(turn)
        except TimeoutError as error:
            raise StoreUnavailableError("the parts of others could not be sent") from error
        return self._kept.pop() if self._kept and size == self.size else bytearray(size)

    def is_overdue(self, since: float) -> bool:
        """Whether who began to fill a buffer at `since`, of `time.monotonic`, must let others."""
        return bool(self._waiting) and time.monotonic() - since > PATIENCE

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Talk to the store for what is in a buffer. When that fails nobody waits for one longer:
        else each who came to it would wait for the store in turn.
        """
        try:
            yield
        except StoreUnavailableError:
            while self._waiting:
                self._waiting.pop().reschedule(asyncio.get_running_loop().time())
            raise

    def give_back(self, buffer: bytearray) -> None:
        if len(buffer) == self.size:
            self._kept.append(buffer)
        self._free.release()
