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
from msgspec import Struct

from registry.errors import DatabaseUnavailableError
from storage.shield import run_to_completion

T = TypeVar("T")

REQUEST_TIMEOUT_S = 3.5
"""Seconds that a request waits for the database, including the wait for a free thread."""

LONG_TIMEOUT_S = 60.0
"""Timeout in seconds for work that grows with the data, while the database answers other queries.
"""

UNAVAILABLE = "the database is unavailable"

_PROBE_EVERY_S = 1.0
"""Seconds between two probes during a long wait."""

_SLOW_S = 0.5
"""Seconds after which an answer counts as slow."""


class Deadline(Struct, frozen=True):
    """The end of a wait, on the clock of `time.monotonic`.

    A long wait, with a timeout above `REQUEST_TIMEOUT_S`, also ends when the database does not
    answer other queries.
    """

    at: float
    is_long: bool

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        return cls(time.monotonic() + seconds, seconds > REQUEST_TIMEOUT_S)

    @property
    def seconds_left(self) -> float:
        """Seconds until the deadline; negative if it has passed."""
        return self.at - time.monotonic()


class _TimeSpent(Struct, frozen=True):
    """Seconds that a context has spent on slow answers, as of `at`, of `time.monotonic`.

    The sum shrinks by one for each second that passes.
    """

    seconds: float = 0.0
    at: float = 0.0

    def as_of(self, now: float) -> "_TimeSpent":
        return _TimeSpent(max(0.0, self.seconds - (now - self.at)), now)

    def plus(self, seconds: float) -> "_TimeSpent":
        return _TimeSpent(self.seconds + seconds, self.at + seconds)

    def limit(self, timeout_s: float) -> float:
        """Return the part of the timeout that is left, in seconds."""
        if not self.seconds:
            return timeout_s
        return min(timeout_s, REQUEST_TIMEOUT_S - self.seconds)


_time_spent: ContextVar[_TimeSpent] = ContextVar("time_spent")


class AbandonedError(Exception):
    """No caller waits for the call any more."""


class CancellableCall(Generic[T]):
    """One call on a thread.

    `run` receives the call and does the work. It wraps each use of a connection in `using`.
    """

    def __init__(self, threads: Executor, run: "Callable[[CancellableCall[T]], T]") -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._is_abandoned = False
        self.future: Future[T] = threads.submit(run, self)

    @property
    def is_abandoned(self) -> bool:
        return self._is_abandoned

    @contextlib.contextmanager
    def using(self, connection: sa.Connection) -> Iterator[None]:
        """Use `connection` within this context. Raises AbandonedError if no caller waits."""
        number = connection.connection.dbapi_connection.fileno()  # type: ignore[union-attr]
        with self._lock:
            if self._is_abandoned:
                raise AbandonedError
            # A duplicate, because the driver may close its descriptor and the number may be reused.
            self._socket = socket.socket(socket.AF_UNIX, fileno=os.dup(number))
        try:
            yield
        finally:
            with self._lock:
                self._socket.close()
                self._socket = None

    def abandon(self) -> bool:
        """Stop waiting. Returns True if the work had begun, in which case it now fails at once."""
        with self._lock:
            self._is_abandoned = True
            if self._socket is None:
                return False
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            return True


async def await_with_deadline(
    start: Callable[[], CancellableCall[T]],
    probe: Callable[[], Awaitable[object]],
    timeout_s: float = REQUEST_TIMEOUT_S,
    *,
    shielded: bool = False,
) -> T:
    """Return the result of the call that `start` starts.

    Raises DatabaseUnavailableError at the timeout. Work that had begun has ended by then, with or
    without success. With `shielded` this also holds after a cancellation.

    A caller that asks several times does not get the full timeout each time, and neither does its
    cleanup: the time of recent slow answers is subtracted. `probe` sends a small query. While that
    is not answered, no call waits longer than REQUEST_TIMEOUT_S.
    """
    started = time.monotonic()
    spent = _time_spent.get(_TimeSpent()).as_of(started)
    timeout_s = spent.limit(timeout_s)
    if timeout_s <= 0:
        raise DatabaseUnavailableError(UNAVAILABLE)
    deadline = Deadline.after(timeout_s)
    waiting = _await_result(start(), probe, deadline)
    is_answered = False
    try:
        result = await (run_to_completion(waiting) if shielded else waiting)
        is_answered = True
    finally:
        took = time.monotonic() - started
        is_expected = is_answered and (took < _SLOW_S or deadline.is_long)
        _time_spent.set(
            _TimeSpent(spent.seconds, started + took) if is_expected else spent.plus(took)
        )
    return result


async def _await_result(
    call: CancellableCall[T], probe: Callable[[], Awaitable[object]], deadline: Deadline
) -> T:
    future = asyncio.wrap_future(call.future)
    try:
        await _wait_until(deadline, future, probe)
    except asyncio.CancelledError:
        # The caller is gone, so nobody reads the result, but the work must still end.
        future.cancel()
        seconds = min(REQUEST_TIMEOUT_S, deadline.seconds_left)
        asyncio.get_running_loop().call_later(seconds, call.abandon)
        raise
    if not future.done() and not call.abandon():
        future.cancel()
        raise DatabaseUnavailableError(UNAVAILABLE)
    return await future


async def _wait_until(
    deadline: Deadline, future: asyncio.Future[T], probe: Callable[[], Awaitable[object]]
) -> None:
    """Return when the future is done, or when waiting for it is useless."""
    if not deadline.is_long:
        await asyncio.wait([future], timeout=deadline.seconds_left)
        return
    while not future.done() and deadline.seconds_left > 0:
        await asyncio.wait([future], timeout=_PROBE_EVERY_S)
        if not future.done() and not await _is_answered(probe):
            return


async def _is_answered(probe: Callable[[], Awaitable[object]]) -> bool:
    try:
        await probe()
    except DatabaseUnavailableError:
        return False
    return True
