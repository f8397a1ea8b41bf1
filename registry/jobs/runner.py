"""Runs jobs beside the server: each on one process at a time, again and again."""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from registry.services.leases import Leases

logger = logging.getLogger(__name__)

LEASE = 60.0
"""Seconds after which another process may take over a job whose process died."""

LONGEST_PAUSE = 300.0
"""Seconds between attempts of a job that keeps failing, at the most."""


@dataclass(frozen=True, slots=True)
class Job:
    """`run` does a bounded piece of work and says how much it did; it is called until that is 0.

    `is_due` is a cheap look, so that idle processes write no leases. `interval` in seconds.
    """

    name: str
    interval: float
    is_due: Callable[[], Awaitable[bool]]
    run: Callable[[], Awaitable[int]]


class Runner:
    """The jobs of this process."""

    def __init__(self, leases: Leases, jobs: list[Job]) -> None:
        self._leases = leases
        self._jobs = jobs
        self._holder = uuid.uuid4().hex
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._repeat(job), name=job.name) for job in self._jobs]

    async def stop(self) -> None:
        """Let running pieces of work end, give the leases back."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)

    async def _repeat(self, job: Job) -> None:
        pause = job.interval
        while not self._stopping.is_set():
            try:
                await self._run(job)
                pause = job.interval
            except Exception:
                # A job must outlive every failure of the database and the store.
                pause = min(pause * 2, LONGEST_PAUSE)
                logger.exception("job %s failed; next attempt in %.0f s", job.name, pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def _run(self, job: Job) -> None:
        if not await job.is_due():
            return
        while await self._leases.claim(job.name, self._holder, LEASE):
            done = await job.run()
            if done:
                logger.info("job %s: %d done", job.name, done)
            if not done or self._stopping.is_set():
                await self._leases.release(job.name, self._holder)
                return
