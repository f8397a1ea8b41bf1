"""The runner of background jobs in the server. Each job runs in one process at a time."""

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Awaitable, Callable

from msgspec import Struct

from registry.errors import DatabaseUnavailableError
from registry.services.maintenance.leases import Leases

logger = logging.getLogger(__name__)

LEASE_S = 30.0
"""Seconds after which another process may take over the job of a dead process."""

HEARTBEAT_S = 10.0
"""Seconds between extensions of the lease of a running job."""

LONGEST_PAUSE = 300.0
"""Maximum number of seconds between attempts of a failing job."""

TIMEOUT_S = 3.0
"""Seconds that running work has to finish on shutdown."""


class Job(Struct, frozen=True):
    """A background job.

    `run` does a bounded amount of work and returns how much it did. It is called until it returns
    0. It may be interrupted at any point, by kill -9 or the loss of the lease, and the next call
    continues.

    `is_due` is a cheap check, so that idle processes write no leases. `interval` is in seconds.
    """

    name: str
    interval: float
    is_due: Callable[[], Awaitable[bool]]
    run: Callable[[], Awaitable[int]]


class Runner:
    """The runner of the jobs of this process."""

    def __init__(self, leases: Leases, jobs: list[Job]) -> None:
        self._leases = leases
        self._jobs = jobs
        self._holder = uuid.uuid4().hex
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._repeat(job), name=job.name) for job in self._jobs]

    async def stop(self) -> None:
        """Wait for running work, cancel it after a timeout, and release the leases."""
        self._stopping.set()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=TIMEOUT_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _repeat(self, job: Job) -> None:
        pause = job.interval
        while not self._stopping.is_set():
            try:
                await self.run(job)
                pause = job.interval
            except Exception:
                # A job must survive all failures of the database and the store.
                pause = min(pause * 2, LONGEST_PAUSE)
                logger.exception("job %s failed; next attempt in %.0f s", job.name, pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def run(self, job: Job) -> None:
        """Run a due job until it has no work left, unless another process runs it.

        Raises the errors of the job.
        """
        if not await job.is_due():
            return
        total = 0
        while True:
            claimed = time.monotonic()
            if not await self._claim(job):
                return
            try:
                done = await self._hold(job, asyncio.ensure_future(job.run()), claimed)
            except BaseException:
                # Another process may succeed where this one fails.
                with contextlib.suppress(DatabaseUnavailableError):
                    await self._leases.release(job.name, self._holder)
                raise
            total += done
            if not done or self._stopping.is_set():
                await self._leases.release(job.name, self._holder)
                if total:
                    logger.info("job %s: %d done", job.name, total)
                return

    async def _hold(self, job: Job, work: asyncio.Future[int], claimed: float) -> int:
        """Extend the lease while `work` runs, and return its result.

        Cancels the work if the lease is lost, and returns 0.
        """
        try:
            while not (await asyncio.wait([work], timeout=HEARTBEAT_S))[0]:
                asked = time.monotonic()
                try:
                    if not await self._claim(job):
                        break
                    claimed = asked
                except DatabaseUnavailableError:
                    if time.monotonic() > claimed + LEASE_S - HEARTBEAT_S:
                        break
            else:
                return work.result()
        finally:
            if not work.done():
                work.cancel()
                await asyncio.wait([work])
        logger.warning("job %s: interrupted, because its lease was lost", job.name)
        return 0

    async def _claim(self, job: Job) -> bool:
        return await self._leases.claim(job.name, self._holder, LEASE_S)
