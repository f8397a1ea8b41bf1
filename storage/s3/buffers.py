"""Buffer pool that bounds the memory of upload parts in this process."""

import asyncio
import contextlib
import time
from collections.abc import Iterator

from storage.errors import StoreUnavailableError

FILL_TIMEOUT_S = 120.0
"""Seconds that a buffer may take to fill while other uploads wait for one."""


class BufferPool:
    """A fixed number of part-sized byte arrays, which are reused.

    Freeing and allocating them each time would fragment the heap.
    """

    def __init__(self, count: int, size: int) -> None:
        self.size = size
        self._free = asyncio.Semaphore(count)
        self._kept: list[bytearray] = []
        self._waiting: set[asyncio.Timeout] = set()

    async def acquire(self, size: int) -> bytearray:
        """Wait for a buffer of `size` bytes, the part size of the session.

        Raises StoreUnavailableError if the store fails for another upload while this one waits.
        """
        try:
            async with asyncio.timeout(None) as turn:
                self._waiting.add(turn)
                try:
                    await self._free.acquire()
                finally:
                    self._waiting.discard(turn)
        except TimeoutError as error:
            raise StoreUnavailableError(
                "the object store failed while this upload waited for a buffer"
            ) from error
        return self._kept.pop() if self._kept and size == self.size else bytearray(size)

    def is_overdue(self, since: float) -> bool:
        """Return whether an upload holds its buffer for too long while others wait for one.

        `since` is the `time.monotonic` at which the upload began to fill it.
        """
        return bool(self._waiting) and time.monotonic() - since > FILL_TIMEOUT_S

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Wrap a request to the store for which a buffer is held.

        If the store is unavailable, all uploads that wait for a buffer fail now. Otherwise each of
        them would take a buffer and wait for the store in turn.
        """
        try:
            yield
        except StoreUnavailableError:
            while self._waiting:
                self._waiting.pop().reschedule(asyncio.get_running_loop().time())
            raise

    def release(self, buffer: bytearray) -> None:
        if len(buffer) == self.size:
            self._kept.append(buffer)
        self._free.release()
