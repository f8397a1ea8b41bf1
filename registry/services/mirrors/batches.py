"""Batches: small pieces of a body, collected while the previous ones are being written."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Self

BATCH = 1 << 20
"""Bytes that may wait while as many are being written."""


class BatchWriter:
    """Writes pieces in the background, as soon as the previous ones are written.

    Used as a context. All pieces are written when it ends without an error, and none is being
    written when it ends with one. At most about two batches are in memory.
    """

    def __init__(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        self._write = write
        self._waiting = bytearray()
        self._taken = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        writing, self._writing = self._writing, None
        if writing is None:
            return
        if kind is None:
            await writing
            return
        writing.cancel()
        await asyncio.wait([writing])
        if not writing.cancelled():
            writing.exception()  # the block has failed already

    async def put(self, piece: bytes) -> None:
        """Write a piece soon. Raises the error of an earlier write."""
        writing = self._writing
        while writing is not None and not writing.done() and len(self._waiting) >= BATCH:
            self._taken.clear()
            await self._taken.wait()
        if writing is not None and writing.done():
            writing.result()
        self._waiting += piece
        if writing is None or writing.done():
            self._writing = asyncio.create_task(self._write_all())

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = bytes(self._waiting), bytearray()
                self._taken.set()
                await self._write(batch)
        finally:
            self._taken.set()
