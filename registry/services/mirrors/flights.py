"""One fetch at a time of each thing, for all requests of this process and of all others."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, TypeVar

from registry.errors import BusyError
from registry.services.maintenance.leases import Leases

T = TypeVar("T")

LEASE_S = 15.0
"""The time after which another process may fetch, if the one that fetches has died."""

LOOK_EVERY_S = 0.1
"""The time between two looks at what another process has fetched."""

PATIENCE_S = 9.0
"""The time to wait for another process, which may have died."""


class Flights(Generic[T]):
    """Fetches in progress, by key."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._holder = uuid.uuid4().hex
        self._tasks: dict[str, asyncio.Task[T]] = {}

    async def run(
        self, key: str, find: Callable[[], Awaitable[T | None]], fetch: Callable[[], Awaitable[T]]
    ) -> T:
        """Return what `find` or `fetch` returns, or raise the error of `fetch`.

        All callers with the same key share one call of `fetch`. `find` returns what another process
        has fetched meanwhile, or None. A caller that is cancelled does not end the fetch. Raises
        BusyError if another process fetches for too long.
        """
        task = self._tasks.get(key)
        if task is None:
            task = asyncio.create_task(self._run(key, find, fetch))
            self._tasks[key] = task
            task.add_done_callback(partial(self._end, key))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Cancel all fetches."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _end(self, key: str, task: asyncio.Task[T]) -> None:
        del self._tasks[key]
        if not task.cancelled():
            task.exception()  # no caller may be left

    async def _run(
        self, key: str, find: Callable[[], Awaitable[T | None]], fetch: Callable[[], Awaitable[T]]
    ) -> T:
        lease = f"mirror/{key}"
        until = time.monotonic() + PATIENCE_S
        while not await self._leases.claim(lease, self._holder, LEASE_S):
            if time.monotonic() > until:
                raise BusyError("another process fetches this from the upstream; try again")
            await asyncio.sleep(LOOK_EVERY_S)
            if (found := await find()) is not None:
                return found
        try:
            found = await find()
            return found if found is not None else await fetch()
        finally:
            await self._leases.release(lease, self._holder)
