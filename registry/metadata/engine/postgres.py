"""PostgreSQL readers and writers: READ COMMITTED transactions on threads, retried on conflict."""

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import sqlalchemy as sa

from registry.metadata.engine.connections import Connections, WrongServerError
from registry.metadata.engine.deadlines import REQUEST_TIMEOUT_S, CancellableCall
from registry.metadata.engine.transaction import Transaction

T = TypeVar("T")

ATTEMPTS = 4

_CONFLICTS = {
    "40001",  # serialization_failure
    "40P01",  # deadlock_detected
    "23503",  # foreign_key_violation: a row was deleted after the check; check again
    "23505",  # unique_violation: a row was inserted after the check; check again
}

_PAUSE = 0.02
"""Average seconds before the second attempt; doubled for each further attempt."""


_UNSYNCED = "SET LOCAL synchronous_commit = off"


def _allow(seconds: float) -> str:
    """Return the statement that limits each statement of the transaction to `seconds`."""
    return f"SET LOCAL statement_timeout = '{seconds:.0f}s'"


class PostgresReader:
    """Threads that each run one read at a time."""

    def __init__(self, connections: Connections, threads: int, clock: Callable[[], int]) -> None:
        self._connections = connections
        self._clock = clock
        self._threads = ThreadPoolExecutor(threads, "sql-read")

    def submit(
        self, work: Callable[[Transaction], T], timeout_s: float = REQUEST_TIMEOUT_S
    ) -> CancellableCall[T]:
        """Start a read. By default, each of its statements sees its own snapshot.

        If `timeout_s` exceeds REQUEST_TIMEOUT_S, all statements see one snapshot and each may take
        that many seconds.
        """

        def run(call: CancellableCall[T]) -> T:
            with (
                self._connections.taken(lambda: call.is_abandoned, writing=False) as connection,
                call.using(connection),
            ):
                if timeout_s > REQUEST_TIMEOUT_S:
                    connection.execution_options(isolation_level="REPEATABLE READ")
                self._connections.prepare(connection)
                if timeout_s > REQUEST_TIMEOUT_S:
                    connection.exec_driver_sql(_allow(timeout_s))
                return work(Transaction(connection, "", self._clock()))

        def run_again_if_lost(call: CancellableCall[T]) -> T:
            try:
                return run(call)
            except (sa.exc.DBAPIError, WrongServerError) as error:
                if not _is_lost(error) or call.is_abandoned:
                    raise
                return run(call)

        return CancellableCall(self._threads, run_again_if_lost)

    def close(self) -> None:
        self._threads.shutdown()


class PostgresWriter:
    """Threads that each run one transaction at a time."""

    def __init__(self, connections: Connections, threads: int, clock: Callable[[], int]) -> None:
        self._connections = connections
        self._clock = clock
        self._threads = ThreadPoolExecutor(threads, "sql-write")

    def submit(
        self,
        work: Callable[[Transaction], T],
        actor: str,
        timeout_s: float = REQUEST_TIMEOUT_S,
        *,
        durable: bool = True,
    ) -> CancellableCall[T]:
        """Start a transaction.

        If `timeout_s` exceeds REQUEST_TIMEOUT_S, each statement may take that many seconds. Without
        `durable`, the commit does not wait until the server has synced it.
        """
        settings = [] if durable else [_UNSYNCED]
        if timeout_s > REQUEST_TIMEOUT_S:
            settings.append(_allow(timeout_s))
        return CancellableCall(
            self._threads, lambda call: self._transact(call, work, actor, "; ".join(settings))
        )

    def _transact(
        self,
        call: CancellableCall[T],
        work: Callable[[Transaction], T],
        actor: str,
        settings: str,
    ) -> T:
        for attempt in range(1, ATTEMPTS + 1):
            committing = False
            try:
                with (
                    self._connections.taken(lambda: call.is_abandoned, writing=True) as connection,
                    call.using(connection),
                ):
                    self._connections.prepare(connection)
                    if settings:
                        connection.exec_driver_sql(settings)
                    transaction = Transaction(connection, actor, self._clock())
                    result = work(transaction)
                    transaction.write_changes()
                    committing = True
                    connection.commit()
                    return result
            except (sa.exc.DBAPIError, WrongServerError) as error:
                # No retry if the connection is lost during the commit: its outcome is unknown.
                lost = _is_lost(error) and not committing and attempt == 1
                if attempt == ATTEMPTS or call.is_abandoned or not (lost or _is_conflict(error)):
                    raise
            time.sleep(random.uniform(0, _PAUSE * 2**attempt))  # noqa: S311 - against lockstep
        raise AssertionError

    def close(self) -> None:
        self._threads.shutdown()


def _is_conflict(error: Exception) -> bool:
    return getattr(getattr(error, "orig", None), "sqlstate", None) in _CONFLICTS


def _is_lost(error: Exception) -> bool:
    """Return whether the connection is lost, or led to a server that must not be used."""
    if isinstance(error, WrongServerError):
        return True
    return isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated
