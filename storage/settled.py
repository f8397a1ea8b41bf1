"""Waiting for work on threads to end, whatever happens to the coroutine that waits."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def settled(work: Awaitable[T], undo: Callable[[T], Awaitable[None]] | None = None) -> T:
    """Await `work` to its end even when cancelled, and only then raise the cancellation.

    `undo` is given a result that the cancelled caller will never see, and has to close.

    A thread cannot be cancelled. If the coroutine went on before it, a descriptor could be closed
    and its number reused while the thread still writes: bytes of one upload in another file.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        # An error counts as seen from here on: the cancellation is what the caller gets.
        if not task.cancelled() and task.exception() is None and undo is not None:
            await settled(undo(task.result()))
        raise cancelled
    return task.result()
