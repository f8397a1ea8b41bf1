"""Patience with servers that fail for a moment, and bounded concurrency."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from registry.errors import BusyError, UpstreamUnavailableError

T = TypeVar("T")

PAUSES_S = (1.0, 3.0, 10.0)
"""Seconds before each new attempt, if the server states no other time."""

LONGEST_PAUSE_S = 60.0
"""A longer time that a server states is not waited for: the next sync continues."""


async def retry(call: Callable[[], Awaitable[T]]) -> T:
    """Return the result of `call`, which is repeated if the server is busy or does not answer.

    Raises the error of the last attempt.
    """
    for pause in PAUSES_S:
        try:
            return await call()
        except BusyError:
            await asyncio.sleep(pause)
        except UpstreamUnavailableError as error:
            if error.retry_after > LONGEST_PAUSE_S:
                raise
            await asyncio.sleep(max(pause, error.retry_after))
    return await call()


async def for_each(items: Iterable[T], work: Callable[[T], Awaitable[None]], at_once: int) -> None:
    """Run `work` for all items, for at most `at_once` of them at the same time.

    An error of `work` ends all, and is raised.
    """
    waiting = iter(items)

    async def run() -> None:
        for item in waiting:
            await work(item)

    tasks = [asyncio.create_task(run()) for _ in range(at_once)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
