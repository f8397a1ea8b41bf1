"""First-come, first-served connection pool, which adapts to a server with few connections."""

import threading
import time
from collections import deque
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import ConnectionPoolEntry

RETRY_AFTER = 5.0
"""Seconds after which the limit grows again if the server had no connection left."""


class FairPool(sa.Pool):
    """At most `pool_size` connections, given to callers in the order of their requests.

    The connection used last is handed out first. The others become idle, and `trim` closes them.
    """

    def __init__(
        self, creator: Any, pool_size: int = 1, timeout: float = 30.0, **options: Any
    ) -> None:
        """Create the pool, with the parameter names that `sa.create_engine` passes.

        `timeout` is the time in seconds after which a waiting caller gets sa.exc.TimeoutError.
        """
        super().__init__(creator, **options)
        self._size = pool_size
        self._timeout = timeout
        self._lock = threading.Lock()
        self._limit = pool_size
        self._limited_at = 0.0
        self._used = 0
        self._queue: deque[threading.Event] = deque()
        self._idle: list[tuple[ConnectionPoolEntry, float]] = []
        self._disposed = False

    @property
    def limit(self) -> int:
        """Maximum number of connections in use: `pool_size`, or fewer if the server has no more."""
        return self._limit

    @property
    def idle(self) -> int:
        """Number of open connections that are not in use."""
        return len(self._idle)

    def lower_limit(self) -> bool:
        """Limit the pool to the connections it has, because the server has none left.

        Returns False if it has none, so that none will be returned to it.
        """
        with self._lock:
            opened = self._used + len(self._idle)
            self._limit = min(max(1, opened), self._size)
            self._limited_at = time.monotonic()
            return opened > 0

    def trim(self, idle_seconds: float) -> None:
        """Close connections idle for `idle_seconds`, because other processes may need them."""
        before = time.monotonic() - idle_seconds
        with self._lock:
            old = [record for record, since in self._idle if since <= before]
            self._idle = [each for each in self._idle if each[1] > before]
        for record in old:
            record.close()

    def status(self) -> str:
        return f"{self._used} connections used of {self._limit}, {self.idle} idle"

    def dispose(self) -> None:
        """Close idle connections now, and those in use when they are returned."""
        self._disposed = True
        self.trim(0)

    def recreate(self) -> "FairPool":
        return FairPool(
            self._creator,
            pool_size=self._size,
            timeout=self._timeout,
            dialect=self._dialect,
            _dispatch=self.dispatch,
        )

    def _do_get(self) -> ConnectionPoolEntry:
        self._take_turn()
        try:
            with self._lock:
                if self._idle:
                    return self._idle.pop()[0]
            return self._create_connection()
        except BaseException:
            self._end_turn()
            raise

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        kept = record.dbapi_connection is not None and not self._disposed
        try:
            if kept:
                with self._lock:
                    self._idle.append((record, time.monotonic()))
            else:
                record.close()
        finally:
            self._end_turn()

    def _take_turn(self) -> None:
        turn = threading.Event()
        with self._lock:
            if self._limit < self._size and time.monotonic() > self._limited_at + RETRY_AFTER:
                self._limit += 1
                self._limited_at = time.monotonic()
            self._queue.append(turn)
            self._admit()
        if turn.wait(self._timeout):
            return
        with self._lock:
            if turn.is_set():
                return
            self._queue.remove(turn)
        raise sa.exc.TimeoutError(f"no connection within {self._timeout} s: {self.status()}")

    def _end_turn(self) -> None:
        with self._lock:
            self._used -= 1
            self._admit()

    def _admit(self) -> None:
        while self._queue and self._used < self._limit:
            self._used += 1
            self._queue.popleft().set()
