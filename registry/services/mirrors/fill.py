"""A fill: a blob on its way from an upstream, and the readers of the bytes that have arrived."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Self

from registry.errors import BusyError
from storage.driver import StagedReader
from storage.errors import ObjectCorruptError
from storage.piece_budget import PieceBudget


class Fill:
    """The bytes of a blob that have arrived, and how the fill ended.

    The last byte is kept back until the fill has ended well, so that a wrong body never looks
    complete. The bytes are open until the fill has ended and the last reader is closed.
    """

    def __init__(self, budget: PieceBudget) -> None:
        self.size = 0
        self.budget = budget
        self._bytes: StagedReader | None = None
        self._available = 0
        self._users = 1
        loop = asyncio.get_running_loop()
        self._begun: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[None] = loop.create_future()
        self._grown = asyncio.Event()

    def begin(self, size: int, staged: StagedReader | None) -> None:
        """Announce the size of the blob, and its bytes unless they cannot be read yet.

        The fill closes `staged`.
        """
        self.size, self._bytes = size, staged
        self._begun.set_result(None)

    def grow(self, available: int) -> None:
        """Announce that the first `available` bytes can be read."""
        if available > self._available:
            self._available = available
            self._wake()

    async def end(self, error: Exception | None) -> None:
        """End the fill: without an error, the bytes are verified, and stored if they must be."""
        for future in (self._begun, self._ended):
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
                future.exception()  # there may be no reader
        self._wake()
        await self.release()

    def _wake(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()

    async def join(self) -> "FillReader | None":
        """Return a reader as soon as the size is known.

        Returns None if the blob can be read from the store, after waiting for that if its bytes
        cannot be read earlier. Raises the error of the fill.
        """
        self._users += 1
        try:
            await _wait(self._begun)
            if self._bytes is None or self.size == 0:
                await self.wait_for_end()
        except BaseException:
            await self.release()
            raise
        if self._bytes is None:
            await self.release()
            return None
        return FillReader(self, self._bytes)

    async def follow(self, advance: Callable[[int], None]) -> None:
        """Wait until the fill has ended, and report the bytes that have arrived to `advance`.

        Raises the error of the fill.
        """
        self._users += 1
        try:
            await _wait(self._begun)
            position = 0
            while position < self.size:
                position = await self.wait_beyond(position)
                advance(position)
            await self.wait_for_end()
        finally:
            await self.release()

    async def release(self) -> None:
        """End one use of the fill, by the fill itself or by a reader."""
        self._users -= 1
        if not self._users and self._bytes is not None:
            await self._bytes.close()

    async def wait_for_end(self) -> None:
        """Wait until the fill has ended. Raises its error."""
        await _wait(self._ended)

    async def wait_beyond(self, position: int) -> int:
        """Return the end of the bytes that may be sent, once it is after `position`.

        Raises the error of the fill.
        """
        while True:
            if self._ended.done():
                self._ended.result()
                end = self.size
            else:
                end = min(self._available, self.size - 1)
            if end > position:
                return end
            await self._grown.wait()


async def _wait(future: asyncio.Future[None]) -> None:
    """Wait for a future that others wait for as well."""
    await asyncio.wait([future])
    future.result()


class FillReader:
    """A reader of a blob in a fill, as `storage.driver.Reader`. It reads at its own pace."""

    file = None

    def __init__(self, fill: Fill, staged: StagedReader) -> None:
        self.size = fill.size
        self._fill = fill
        self._bytes = staged
        self._is_open = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def read(self, start: int, length: int) -> AsyncIterator[bytes]:
        """Yield exactly `length` bytes from `start`, as they arrive.

        Raises the error of the fill, and ObjectCorruptError.
        """
        if start + length > self.size:
            raise ObjectCorruptError("the range ends after the blob")
        end = start + length
        while start < end:
            available = await self._fill.wait_beyond(start)
            with self._fill.budget.take() as most:
                piece = await self._bytes.read(start, min(most, min(end, available) - start))
                if not piece:
                    # A fill that fails drops its bytes first.
                    await self._fill.wait_for_end()
                    raise ObjectCorruptError("the bytes of the fill are gone")
                start += len(piece)
                yield piece

    async def close(self) -> None:
        """Close the reader. The fill continues."""
        if self._is_open:
            self._is_open = False
            await self._fill.release()


def shutting_down() -> BusyError:
    """Return the error for fills that are cancelled."""
    return BusyError("the server is shutting down")
