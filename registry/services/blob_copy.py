"""Copying of blobs between stores: a pool of copies, and reading with a rate limit."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from registry.services.throttle import Throttle
from storage.driver import Reader
from storage.errors import ObjectCorruptError

T = TypeVar("T")


class SourceDamagedError(Exception):
    """The source bytes of a blob cannot be read."""


class ReadCounter(Protocol):
    """Progress of a run. `read` is the number of bytes read so far."""

    read: int


async def for_each(
    rows: AsyncIterator[T], work: Callable[[T], Awaitable[None]], parallel: int
) -> None:
    """Run `work` for all rows, at most `parallel` at a time. The first failure cancels the rest."""
    waiting: asyncio.Queue[T | None] = asyncio.Queue(parallel)

    async def feed() -> None:
        async for row in rows:
            await waiting.put(row)
        for _ in range(parallel):
            await waiting.put(None)

    async def take() -> None:
        while (row := await waiting.get()) is not None:
            await work(row)

    await _gather_or_cancel(feed(), *(take() for _ in range(parallel)))


async def read_source(
    reader: Reader, size: int, progress: ReadCounter, pace: Throttle
) -> AsyncIterator[bytes]:
    """Yield the bytes of a blob. Raises SourceDamagedError if they cannot be read to the end."""
    try:
        async for piece in reader.read(0, size):
            await pace.take(len(piece))
            progress.read += len(piece)
            yield piece
    except ObjectCorruptError as error:
        raise SourceDamagedError from error


async def _gather_or_cancel(*jobs: Coroutine[Any, Any, None]) -> None:
    """Run all coroutines. The first failure cancels the others and is raised."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
