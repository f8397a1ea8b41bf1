"""A call to PostgreSQL: work on a thread for somebody whose patience ends.

A server that is frozen, or cut off, answers nothing, not even that it is: only the clock tells.
A thread that waits for its answer cannot be cancelled, so the connection under it is shut, and the
thread is free for the next in a moment.
"""

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor, Future
from contextvars import ContextVar
from typing import Generic, TypeVar

import sqlalchemy as sa

from registry.errors import DatabaseUnavailableError
from storage.settled import settled

T = TypeVar("T")

PATIENCE = 3.5
"""Seconds that a request waits for the database, waiting for a free thread included."""

LONG = 60.0
"""Patience for work that grows with what is there, as long as the database answers others."""

UNAVAILABLE = "the database cannot answer now"

_LOOK_EVERY = 1.0

_SLOW = 0.5
"""Seconds from which an answer counts as waited for."""

_waited: ContextVar[tuple[float, float]] = ContextVar("waited", default=(0.0, 0.0))
"""For how long whoever runs in this context has waited for slow answers, and until when, by
`time.monotonic`. Each second that passes since is one of them forgotten.
"""


class GivenUpError(Exception):
    """Nobody waits for the call any more."""


class Call(Generic[T]):
    """One call. `run` is given it and does the work, each piece of it `using` a connection."""

    def __init__(self, threads: Executor, run: "Callable[[Call[T]], T]") -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._given_up = False
        self.future: Future[T] = threads.submit(run, self)

    @property
    def given_up(self) -> bool:
        return self._given_up

    @contextlib.contextmanager
    def using(self, connection: sa.Connection) -> Iterator[None]:
        """While `connection` is used; GivenUpError if nobody waits for that any more."""
        number = connection.connection.dbapi_connection.fileno()  # type: ignore[union-attr]
        with self._lock:
            if self._given_up:
                raise GivenUpError
            # A number of our own: the driver may close its own, and another file be given it.
            self._socket = socket.socket(socket.AF_UNIX, fileno=os.dup(number))
        try:
            yield
        finally:
            with self._lock:
                self._socket.close()
                self._socket = None

    def give_up(self) -> bool:
        """Wait no more; whether the work has begun, and fails in a moment now."""
        with self._lock:
            self._given_up = True
            if self._socket is None:
                return False
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            return True


async def answer(
    begin: Callable[[], Call[T]],
    look: Callable[[], Awaitable[object]],
    patience: float = PATIENCE,
    *,
    to_the_end: bool = False,
) -> T:
    """The result of the call that `begin` begins; DatabaseUnavailableError when patience ends.
    Work that had begun has ended then, one way or the other. `to_the_end`: also if cancelled.

    Whoever asks several times does not wait as long each time, nor does what cleans up after him:
    what was waited lately counts too. `look` asks the database something small: without an
    answer to it nobody waits longer than PATIENCE.
    """
    started = time.monotonic()
    waited, until = _waited.get()
    waited = max(0.0, waited - (started - until))
    left = min(patience, PATIENCE - waited) if waited else patience
    if left <= 0:
        raise DatabaseUnavailableError(UNAVAILABLE)
    waiting = _wait(begin(), look, left)
    served = False
    try:
        result = await (settled(waiting) if to_the_end else waiting)
        served = True
    finally:
        now = time.monotonic()
        quick = served and (now - started < _SLOW or left > PATIENCE)
        _waited.set((waited if quick else waited + now - started, now))
    return result


async def _wait(call: Call[T], look: Callable[[], Awaitable[object]], patience: float) -> T:
    deadline = time.monotonic() + patience
    future = asyncio.wrap_future(call.future)
    try:
        while not future.done() and (left := deadline - time.monotonic()) > 0:
            await asyncio.wait([future], timeout=left if patience <= PATIENCE else _LOOK_EVERY)
            if patience > PATIENCE and not future.done():
                await look()
    except asyncio.CancelledError:
        # Who asked has gone; nobody is to learn how it ends, but it has to.
        future.cancel()
        left = min(PATIENCE, deadline - time.monotonic())
        asyncio.get_running_loop().call_later(left, call.give_up)
        raise
    except DatabaseUnavailableError:
        pass
    if not future.done() and not call.give_up():
        future.cancel()
        raise DatabaseUnavailableError(UNAVAILABLE)
    return await future
