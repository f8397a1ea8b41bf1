"""Threads for blocking calls to the disk."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from storage.job_threads import JobThreads, Then
from storage.shield import run_to_completion

T = TypeVar("T")

THREADS = 16
"""Threads for writers, and again for readers."""


class DiskThreads:
    """Two thread pools. Writers have their own, so that stalled uploads cannot starve pulls."""

    def __init__(self) -> None:
        self.readers = ThreadPoolExecutor(THREADS, "disk-read")
        self._writers = JobThreads(THREADS, "disk-write")

    async def write(
        self,
        job: Callable[[], T],
        on_abandoned: Callable[[T], Awaitable[None]] | None = None,
        then: Then | None = None,
    ) -> T:
        """Run a job that writes.

        `on_abandoned` is as in `run_to_completion`, and `then` as in `JobThreads.start`.
        """
        return await run_to_completion(self._writers.start(job, then), on_abandoned)

    async def read(
        self, job: Callable[[], T], on_abandoned: Callable[[T], Awaitable[None]] | None = None
    ) -> T:
        """Run a job that reads. `on_abandoned` is as in `run_to_completion`."""
        loop = asyncio.get_running_loop()
        return await run_to_completion(loop.run_in_executor(self.readers, job), on_abandoned)

    async def close(self) -> None:
        for close in (self._writers.close, self.readers.shutdown):
            await run_to_completion(asyncio.to_thread(close))
