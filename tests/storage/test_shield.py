"""Tests of `run_to_completion`. A future that the test completes stands for work on a thread."""

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from storage.shield import run_to_completion

pytestmark = pytest.mark.anyio


class WorkError(Exception):
    pass


@pytest.fixture
async def complaints() -> AsyncIterator[list[dict[str, Any]]]:
    """Yield the errors that asyncio reports, such as exceptions that were never retrieved."""
    loop = asyncio.get_running_loop()
    found: list[dict[str, Any]] = []
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: found.append(context))
    yield found
    loop.set_exception_handler(before)


async def begin() -> tuple[asyncio.Future[str], asyncio.Task[str]]:
    work: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(run_to_completion(work))
    await asyncio.sleep(0)
    return work, waiting


async def test_result() -> None:
    work, waiting = await begin()
    work.set_result("done")
    assert await waiting == "done"


async def test_error() -> None:
    work, waiting = await begin()
    work.set_exception(WorkError)
    with pytest.raises(WorkError):
        await waiting


async def test_coroutine() -> None:
    assert await run_to_completion(asyncio.sleep(0, "done")) == "done"


async def test_cancelled_work_cancels_the_waiter() -> None:
    work, waiting = await begin()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


@pytest.mark.parametrize("times", [1, 2, 5])
async def test_cancellation_comes_after_the_work(times: int) -> None:
    work, waiting = await begin()
    for _ in range(times):
        waiting.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done()
        assert not work.done()
    work.set_result("done")
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_without_settled_the_waiter_goes_first() -> None:
    """The control of the test above: a plain await ends first."""

    async def plain(work: asyncio.Future[str]) -> str:
        return await asyncio.shield(work)

    work: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(plain(work))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert waiting.cancelled()
    assert not work.done()


async def test_cancelled_in_the_moment_the_work_ends() -> None:
    work, waiting = await begin()
    work.set_result("done")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_cancelled_before_it_began() -> None:
    ended = []

    async def work() -> None:
        await asyncio.sleep(0)
        ended.append(True)

    async def cancelled_at_its_first_await() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await run_to_completion(work())

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(cancelled_at_its_first_await())
    assert ended == [True]


async def test_error_of_work_nobody_waits_for_is_seen(complaints: list[dict[str, Any]]) -> None:
    work, waiting = await begin()
    waiting.cancel()
    await asyncio.sleep(0)
    work.set_exception(WorkError)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    del work, waiting
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []


async def test_error_that_is_not_looked_at_is_complained_of(
    complaints: list[dict[str, Any]],
) -> None:
    """The control of the test above."""
    work: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    work.set_exception(WorkError)
    del work
    gc.collect()
    await asyncio.sleep(0)
    assert [type(context["exception"]) for context in complaints] == [WorkError]


class Opened:
    """A result that its receiver must close."""

    def __init__(self) -> None:
        self.closed = 0
        self.closing = asyncio.Event()

    async def close(self) -> None:
        await self.closing.wait()
        self.closed += 1


async def begin_opening() -> tuple[asyncio.Future[Opened], asyncio.Task[Opened]]:
    work: asyncio.Future[Opened] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(run_to_completion(work, on_abandoned=Opened.close))
    await asyncio.sleep(0)
    return work, waiting


async def test_result_that_arrives_is_not_undone() -> None:
    work, waiting = await begin_opening()
    opened = Opened()
    work.set_result(opened)
    assert await waiting is opened
    assert opened.closed == 0


async def test_result_that_nobody_gets_is_undone_before_the_cancellation() -> None:
    work, waiting = await begin_opening()
    waiting.cancel()
    await asyncio.sleep(0)
    opened = Opened()
    work.set_result(opened)
    for _ in range(5):
        await asyncio.sleep(0)
    waiting.cancel()  # cancels the clean-up
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done()
    opened.closing.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert opened.closed == 1


async def test_result_is_undone_when_cancelled_in_the_moment_it_comes() -> None:
    work, waiting = await begin_opening()
    opened = Opened()
    opened.closing.set()
    work.set_result(opened)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert opened.closed == 1


async def test_nothing_to_undo_when_the_work_failed() -> None:
    work, waiting = await begin_opening()
    waiting.cancel()
    await asyncio.sleep(0)
    work.set_exception(WorkError)
    with pytest.raises(asyncio.CancelledError):
        await waiting
