"""Runs actors over one registry in every possible order of their steps.

A step is atomic for the other actors: a transaction, or one call of the store. Before each step an
actor waits at a gate. A schedule chooses which actor continues. All schedules are tried, depth
first. The product has no hooks for this: the gates wrap the methods of the database and of the
store.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import pytest

from registry.metadata.engine.database import Database
from storage.memory import MemoryDriver, MemoryUpload

Actor = Callable[[], Awaitable[None]]

_gates: ContextVar["_Gates | None"] = ContextVar("gates", default=None)

STUCK = 20.0
"""Seconds within which an actor must reach its next gate or end."""


class _Gates:
    """The gates at which the actors of one run wait."""

    def __init__(self) -> None:
        self.waiting: dict[int, asyncio.Future[None]] = {}
        self.changed = asyncio.Event()
        self.current = 0

    async def wait(self, number: int) -> None:
        future = self.waiting[number] = asyncio.get_running_loop().create_future()
        self.changed.set()
        await future


_number: ContextVar[int] = ContextVar("number")


STEPS: dict[type, tuple[str, ...]] = {
    Database: ("write",),
    MemoryDriver: ("delete",),
    MemoryUpload: ("finish",),
}
"""The steps that other actors can observe. The rest of an upload is private to its session."""


async def reach_gate() -> None:
    """Let other actors continue. Do nothing outside of an actor."""
    gates = _gates.get()
    if gates is not None:
        await gates.wait(_number.get())


def put_gates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make actors wait before each step."""
    for owner, names in STEPS.items():
        for name in names:
            monkeypatch.setattr(owner, name, _gated(getattr(owner, name)))


def _gated(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        await reach_gate()
        return await method(*args, **kwargs)

    return call


class Schedules:
    """All orders, depth first. Two actors with m and n steps have (m+n)!/(m!n!) orders."""

    def __init__(self) -> None:
        self._next: list[int] | None = []
        self._path: list[tuple[int, int]] = []
        self.count = 0

    def __iter__(self) -> Iterator["Schedules"]:
        while self._next is not None:
            self._path = []
            yield self
            self.count += 1
            self._next = self._find_next()

    def choose(self, options: int) -> int:
        """Return which of `options` actors continues."""
        assert self._next is not None
        depth = len(self._path)
        choice = self._next[depth] if depth < len(self._next) else 0
        assert choice < options, "the same schedule had other steps: something is not repeatable"
        self._path.append((choice, options))
        return choice

    def _find_next(self) -> list[int] | None:
        path = list(self._path)
        while path:
            choice, options = path.pop()
            if choice + 1 < options:
                return [c for c, _ in path] + [choice + 1]
        return None

    @property
    def taken(self) -> list[int]:
        """The choices of this run."""
        return [choice for choice, _ in self._path]


async def run_in_order(actors: Sequence[Actor], schedule: Schedules) -> None:
    """Run the actors in the order of the schedule.

    Exceptions of an actor propagate to the caller.
    """
    gates = _Gates()

    async def act(number: int, actor: Actor) -> None:
        _gates.set(gates)
        _number.set(number)
        await gates.wait(number)
        await actor()

    tasks = {n: asyncio.ensure_future(act(n, actor)) for n, actor in enumerate(actors)}
    try:
        for _ in itertools.count():
            await _settle(gates, tasks)
            for task in tasks.values():
                if task.done():
                    task.result()
            ready = sorted(gates.waiting)
            if not ready:
                return
            chosen = ready[schedule.choose(len(ready))] if len(ready) > 1 else ready[0]
            gates.waiting.pop(chosen).set_result(None)
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


async def _settle(gates: _Gates, tasks: Mapping[int, asyncio.Future[None]]) -> None:
    """Wait until every actor is at a gate or has ended."""
    for task in tasks.values():
        task.add_done_callback(lambda _: gates.changed.set())
    async with asyncio.timeout(STUCK):
        while any(not t.done() and n not in gates.waiting for n, t in tasks.items()):
            gates.changed.clear()
            await gates.changed.wait()
