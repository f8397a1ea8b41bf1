"""A pool of connections that serves its callers in order and gets by with fewer than its size."""

import threading
import time
from collections import deque
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import ConnectionPoolEntry

RETRY_AFTER = 5.0
"""Seconds after which a server that had no connection left is asked for another."""


class FairPool(sa.Pool):
    """At most `pool_size` connections, handed out in the order of asking.

    The connection used last is handed out first. The others become idle, and `trim` closes them.
    """

    def __init__(
        self, creator: Any, pool_size: int = 1, timeout: float = 30.0, **options: Any
    ) -> None:
        """`timeout`: seconds after which a caller that got no connection gets sa.exc.TimeoutError.

        The names are those that `sa.create_engine` passes on.
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
        """Connections that may be in use at once: `pool_size`, or what the server has left."""
        return self._limit

    @property
    def idle(self) -> int:
        """Open connections that nobody uses."""
        return len(self._idle)

    def lower_limit(self) -> bool:
        """Open no more connections than there are, because the server has none left.

        False if there are none, so that none will be returned.
        """
        with self._lock:
            opened = self._used + len(self._idle)
            self._limit = min(max(1, opened), self._size)
            self._limited_at = time.monotonic()
            return opened > 0

    def trim(self, idle_seconds: float) -> None:
        """Close connections that were idle for so long: other processes may need them."""
        before = time.monotonic() - idle_seconds
        with self._lock:
            old = [record for record, since in self._idle if since <= before]
            self._idle = [each for each in self._idle if each[1] > before]
        for record in old:
            record.close()

    def status(self) -> str:
        return f"{self._used} connections used of {self._limit}, {self.idle} idle"

    def dispose(self) -> None:
        """Close idle connections now, and those in use as they are returned."""
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
