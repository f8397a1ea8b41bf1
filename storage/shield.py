"""Waiting for work on threads to end, even if the waiting coroutine is cancelled."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from storage.job_threads import Job

T = TypeVar("T")


async def run_to_completion(
    work: Awaitable[T], on_abandoned: Callable[[T], Awaitable[None]] | None = None
) -> T:
    """Await `work` to its end even when cancelled, and raise the cancellation only then.

    `on_abandoned` receives a result that the cancelled caller never sees, and closes it.

    A thread cannot be cancelled. If the coroutine continued before its thread, a descriptor could
    be closed and its number reused while the thread still writes: bytes of one upload would end up
    in another file.
    """
    if isinstance(work, Job):
        return await _await_job(work, on_abandoned)
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        # The caller gets the cancellation, so an error of `work` only has to be retrieved.
        if not task.cancelled() and task.exception() is None and on_abandoned is not None:
            await run_to_completion(on_abandoned(task.result()))
        raise cancelled
    return task.result()


async def _await_job(job: Job[T], on_abandoned: Callable[[T], Awaitable[None]] | None) -> T:
    job.is_held = True
    try:
        return await job
    except asyncio.CancelledError:
        # The job has ended: a task keeps waiting for a future that refuses to be cancelled.
        if job.done() and job.exception() is None and on_abandoned is not None:
            await run_to_completion(on_abandoned(job.result()))
        raise
