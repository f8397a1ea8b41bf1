"""The memory budget, from which requests reserve and release bytes."""

import asyncio

import pytest

from registry.http import memory

pytestmark = pytest.mark.anyio


async def test_memory_that_is_given_back_as_somebody_gives_up_is_not_lost() -> None:
    budget = memory.MemoryBudget(10)
    await budget.acquire(10)
    waiting = [asyncio.create_task(budget.acquire(10)) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    waiting[0].get_loop().call_soon(budget.release, 10)
    budget.release(0)
    await asyncio.wait(waiting)
    assert waiting[0].cancelled()
    assert waiting[1].result() == 10
    budget.release(10)
    assert budget.free == 10


async def test_memory_is_given_to_nobody_who_has_given_up() -> None:
    budget = memory.MemoryBudget(10)
    await budget.acquire(10)
    waiting = asyncio.create_task(budget.acquire(10))
    await asyncio.sleep(0)
    waiting.cancel()
    budget.release(10)  # release before the task runs again
    await asyncio.wait([waiting])
    assert budget.free == 10
