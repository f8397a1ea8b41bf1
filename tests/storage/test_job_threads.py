"""Tests of jobs on threads that coroutines await."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from storage.job_threads import Job, JobThreads, finish_jobs
from storage.shield import run_to_completion

pytestmark = pytest.mark.anyio


@pytest.fixture
def threads() -> Iterator[JobThreads]:
    started = JobThreads(2, "test-jobs")
    yield started
    started.close()


class Held:
    """A call that a test lets continue."""

    def __init__(self) -> None:
        self.is_running = threading.Event()
        self.may_end = threading.Event()

    def __call__(self) -> str:
        self.is_running.set()
        assert self.may_end.wait(60)
        return "done"


async def start_and_cancel(awaiting: Callable[[Held], "asyncio.Task[str]"]) -> bool:
    """Return whether a cancelled task ended before its call on a thread."""
    held = Held()
    task = awaiting(held)
    assert await asyncio.to_thread(held.is_running.wait, 60)
    task.cancel()
    await asyncio.wait([task], timeout=0.1)
    ended_first = task.done()
    held.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    return ended_first


async def test_a_cancelled_task_waits_for_a_held_job(threads: JobThreads) -> None:
    abandoned: list[str] = []

    async def note(result: str) -> None:
        abandoned.append(result)

    async def wait(held: Held) -> str:
        return await run_to_completion(threads.start(held), note)

    assert not await start_and_cancel(lambda held: asyncio.create_task(wait(held)))
    assert abandoned == ["done"]


async def test_a_cancelled_task_leaves_another_job(threads: JobThreads) -> None:
    """Control of the test above: a plain await."""

    async def wait(held: Held) -> str:
        return await threads.start(held)

    assert await start_and_cancel(lambda held: asyncio.create_task(wait(held)))


async def test_a_timeout_ends_after_a_held_job(threads: JobThreads) -> None:
    held = Held()
    asyncio.get_running_loop().call_later(0.05, held.may_end.set)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await run_to_completion(threads.start(held))
    assert held.may_end.is_set()


async def test_an_error_reaches_the_caller(threads: JobThreads) -> None:
    def fail() -> None:
        raise ValueError("of the call")

    with pytest.raises(ValueError, match="of the call"):
        await run_to_completion(threads.start(fail))
    assert await threads.start(lambda: "next") == "next"


async def test_threads_start_when_needed_and_take_jobs_in_order(threads: JobThreads) -> None:
    ran: list[int] = []
    held = [Held(), Held()]
    for _ in range(3):
        await threads.start(lambda: None)
    assert len(threads._threads) <= 2
    blocking = [threads.start(each) for each in held]
    later = [threads.start(lambda number=number: ran.append(number)) for number in range(5)]  # type: ignore[misc]
    for each in held:
        assert await asyncio.to_thread(each.is_running.wait, 60)
    assert not ran
    held[0].may_end.set()
    await asyncio.gather(*later)
    assert ran == [0, 1, 2, 3, 4]
    assert len(threads._threads) == 2
    held[1].may_end.set()
    assert await asyncio.gather(*blocking) == ["done", "done"]


async def test_close_runs_what_was_started() -> None:
    threads = JobThreads(1, "test-jobs")
    ran: list[int] = []
    jobs = [threads.start(lambda number=number: ran.append(number)) for number in range(20)]  # type: ignore[misc]
    await asyncio.to_thread(threads.close)
    assert ran == list(range(20))
    await asyncio.gather(*jobs)
    with pytest.raises(RuntimeError, match="closed"):
        threads.start(lambda: None)


async def test_jobs_that_end_together_wake_the_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    jobs: list[Job[int]] = [Job(loop=loop) for _ in range(3)]
    woken = []
    call = loop.call_soon_threadsafe

    def wake(callback: Callable[..., object], *given: Any) -> asyncio.Handle:
        woken.append(callback)
        return call(callback, *given)

    with monkeypatch.context() as counting:
        counting.setattr(loop, "call_soon_threadsafe", wake)
        jobs[1].cancel()
        finish_jobs([(job, number, None) for number, job in enumerate(jobs)])
    assert (await jobs[0], await jobs[2]) == (0, 2)
    assert jobs[1].cancelled()
    assert len(woken) == 1


def test_a_job_of_a_closed_loop_is_dropped() -> None:
    held = Held()
    threads = JobThreads(1, "test-jobs")

    async def start() -> None:
        threads.start(held)

    asyncio.run(start())
    held.may_end.set()
    threads.close()


async def test_a_job_is_passed_on_after_its_call(threads: JobThreads) -> None:
    ran: list[str] = []

    def pass_on(job: Job[str]) -> None:
        ran.append("then")
        finish_jobs([(job, "of the next thread", None)])

    def call() -> str:
        ran.append("call")
        return "of the call"

    assert await threads.start(call, pass_on) == "of the next thread"
    assert ran == ["call", "then"]


async def test_a_job_that_fails_is_not_passed_on(threads: JobThreads) -> None:
    passed: list[Job[None]] = []

    def fail() -> None:
        raise ValueError("of the call")

    def refuse(_job: Job[str]) -> None:
        raise RuntimeError("closed")

    with pytest.raises(ValueError, match="of the call"):
        await threads.start(fail, passed.append)
    assert not passed
    with pytest.raises(RuntimeError, match="closed"):
        await threads.start(lambda: "done", refuse)


async def test_a_task_resumes_in_the_turn_in_which_its_job_ends() -> None:
    loop = asyncio.get_running_loop()
    job: Job[str] = Job(loop=loop)
    order: list[str] = []

    async def wait() -> None:
        order.append(await job)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    loop.call_soon(job.finish, "done", None)
    loop.call_soon(order.append, "next")
    await task
    assert order == ["done", "next"]


async def test_all_callbacks_of_a_job_are_called(threads: JobThreads) -> None:
    """Also those after the first one, and not one that was removed."""
    called: list[str] = []

    def first(_job: object) -> None:
        called.append("first")

    for end in ("finish", "cancel"):
        held = Held()
        job = threads.start(held)
        job.add_done_callback(first)
        job.add_done_callback(lambda _job: called.append("second"))
        if end == "cancel":
            assert job.remove_done_callback(first) == 1
            job.add_done_callback(lambda _job: called.append("third"))
            job.cancel()
        held.may_end.set()
        await asyncio.wait([job], timeout=60)
        await asyncio.sleep(0)
    assert sorted(called) == ["first", "second", "second", "third"]
