"""PostgreSQL calls on a thread, with a deadline.

A server that is frozen or cut off sends no answer and no error, so only a timeout detects it. The
thread that waits for the answer cannot be cancelled. Instead its connection is shut down, which
frees the thread at once.
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
from storage.shield import run_to_completion

T = TypeVar("T")

REQUEST_TIMEOUT_S = 3.5
"""Seconds that a request waits for the database, including the wait for a free thread."""

LONG_TIMEOUT_S = 60.0
"""Timeout in seconds for work that grows with the data, while the database answers other queries.
"""

UNAVAILABLE = "the database cannot answer now"

_LOOK_EVERY = 1.0

_SLOW = 0.5
"""Seconds after which an answer counts as slow."""

_waited: ContextVar[tuple[float, float]] = ContextVar("waited", default=(0.0, 0.0))
"""Seconds that this context has spent on slow answers, and the `time.monotonic` of its last update.

The sum shrinks by one for each second that passes.
"""


class AbandonedError(Exception):
    """No caller waits for the call any more."""


class CancellableCall(Generic[T]):
    """One call on a thread.

    `run` receives the call and does the work. It wraps each use of a connection in `using`.
    """

    def __init__(self, threads: Executor, run: "Callable[[CancellableCall[T]], T]") -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._given_up = False
        self.future: Future[T] = threads.submit(run, self)

    @property
    def given_up(self) -> bool:
        return self._given_up

    @contextlib.contextmanager
    def using(self, connection: sa.Connection) -> Iterator[None]:
        """Use `connection` within this context. Raises AbandonedError if no caller waits."""
        number = connection.connection.dbapi_connection.fileno()  # type: ignore[union-attr]
        with self._lock:
            if self._given_up:
                raise AbandonedError
            # A duplicate, because the driver may close its descriptor and the number may be reused.
            self._socket = socket.socket(socket.AF_UNIX, fileno=os.dup(number))
        try:
            yield
        finally:
            with self._lock:
                self._socket.close()
                self._socket = None

    def give_up(self) -> bool:
        """Stop waiting. Returns True if the work had begun, in which case it now fails at once."""
        with self._lock:
            self._given_up = True
            if self._socket is None:
                return False
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            return True


async def await_with_deadline(
    start: Callable[[], CancellableCall[T]],
    probe: Callable[[], Awaitable[object]],
    limit_s: float = REQUEST_TIMEOUT_S,
    *,
    to_the_end: bool = False,
) -> T:
    """Return the result of the call that `begin` starts.

    Raises DatabaseUnavailableError at the timeout (`patience`, in seconds). Work that had begun has
    ended by then, with or without success. With `to_the_end` this also holds after a cancellation.

    A caller that asks several times does not get the full timeout each time, and neither does its
    cleanup: the time of recent slow answers is subtracted. `look` sends a small query. While that
    is not answered, no call waits longer than PATIENCE.
    """
    started = time.monotonic()
    waited, until = _waited.get()
    waited = max(0.0, waited - (started - until))
    left = min(limit_s, REQUEST_TIMEOUT_S - waited) if waited else limit_s
    if left <= 0:
        raise DatabaseUnavailableError(UNAVAILABLE)
    waiting = _wait(start(), probe, left)
    served = False
    try:
        result = await (run_to_completion(waiting) if to_the_end else waiting)
        served = True
    finally:
        now = time.monotonic()
        quick = served and (now - started < _SLOW or left > REQUEST_TIMEOUT_S)
        _waited.set((waited if quick else waited + now - started, now))
    return result


async def _wait(
    call: CancellableCall[T], look: Callable[[], Awaitable[object]], patience: float
) -> T:
    deadline = time.monotonic() + patience
    future = asyncio.wrap_future(call.future)
    try:
        while not future.done() and (left := deadline - time.monotonic()) > 0:
            await asyncio.wait(
                [future], timeout=left if patience <= REQUEST_TIMEOUT_S else _LOOK_EVERY
            )
            if patience > REQUEST_TIMEOUT_S and not future.done():
                await look()
    except asyncio.CancelledError:
        # The caller is gone, so nobody reads the result, but the work must still end.
        future.cancel()
        left = min(REQUEST_TIMEOUT_S, deadline - time.monotonic())
        asyncio.get_running_loop().call_later(left, call.give_up)
        raise
    except DatabaseUnavailableError:
        pass
    if not future.done() and not call.give_up():
        future.cancel()
        raise DatabaseUnavailableError(UNAVAILABLE)
    return await future
