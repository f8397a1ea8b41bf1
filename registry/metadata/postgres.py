"""PostgreSQL: short transactions at READ COMMITTED on threads of their own, retried on conflict."""

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import sqlalchemy as sa

from registry.metadata.call import PATIENCE, Call
from registry.metadata.transaction import Transaction

T = TypeVar("T")

THREADS = 8
"""Connections for reads, and as many for writes."""

ATTEMPTS = 4

_CONFLICTS = {
    "40001",  # serialization_failure
    "40P01",  # deadlock_detected
    "23503",  # foreign_key_violation: what was there when we looked has gone; look again
    "23505",  # unique_violation: what was not there has come; look again
}

_PAUSE = 0.02
"""Seconds between two attempts, about; twice as long each time."""

_SESSION = {
    # All questions are small: to compile one takes longer than to answer it.
    "jit": "off",
    # The server gives up before we do: what it tells keeps its connection.
    "lock_timeout": "2500ms",
    "statement_timeout": "3s",
    # A client cut off in the middle would keep its locks for hours, the counter's of the feed too.
    "idle_in_transaction_session_timeout": "4s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}

CONNECT = {
    "connect_timeout": 3,
    # A server that has vanished answers nothing, not even that it has.
    "tcp_user_timeout": 4000,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "options": " ".join(f"-c {name}={value}" for name, value in _SESSION.items()),
    "application_name": "moorage",
}


def open_engine(url: sa.URL, *, writer: bool) -> sa.Engine:
    """An engine whose statements cannot hang. Connections are not tested before use: it would
    double the time of a read. Who finds a lost one takes another.
    """
    engine = sa.create_engine(
        url,
        pool_size=THREADS,
        max_overflow=0,
        hide_parameters=True,  # an error is logged, and must show no hash of a password
        connect_args=CONNECT,
    )
    return engine if writer else engine.execution_options(isolation_level="AUTOCOMMIT")


def _allow(seconds: float) -> str:
    """Let the statements of a transaction take so long."""
    return f"SET LOCAL statement_timeout = '{seconds:.0f}s'"


class PostgresReader:
    """Threads that each read for one caller at a time."""

    def __init__(self, engine: sa.Engine, clock: Callable[[], int]) -> None:
        self._engine = engine
        self._clock = clock
        self._threads = ThreadPoolExecutor(THREADS, "sql-read")

    def submit(self, work: Callable[[Transaction], T], patience: float = PATIENCE) -> Call[T]:
        """Begin a read, each of its statements of its own moment; above PATIENCE all of one, and
        they may take so many seconds.
        """

        def run(call: Call[T]) -> T:
            with self._engine.connect() as connection, call.using(connection):
                if patience > PATIENCE:
                    connection.execution_options(isolation_level="REPEATABLE READ")
                    connection.exec_driver_sql(_allow(patience))
                return work(Transaction(connection, "", self._clock()))

        def run_again_if_lost(call: Call[T]) -> T:
            try:
                return run(call)
            except sa.exc.DBAPIError as error:
                if not error.connection_invalidated or call.given_up:
                    raise
                return run(call)

        return Call(self._threads, run_again_if_lost)

    def close(self) -> None:
        self._threads.shutdown()
        self._engine.dispose()


class PostgresWriter:
    """Threads that each run one transaction at a time."""

    def __init__(self, url: sa.URL, clock: Callable[[], int]) -> None:
        self._engine = open_engine(url, writer=True)
        self._clock = clock
        self._threads = ThreadPoolExecutor(THREADS, "sql-write")

    def submit(
        self, work: Callable[[Transaction], T], actor: str, patience: float = PATIENCE
    ) -> Call[T]:
        """Begin a transaction; above PATIENCE its statements may take so many seconds, too."""
        return Call(self._threads, lambda call: self._transact(call, work, actor, patience))

    def _transact(
        self, call: Call[T], work: Callable[[Transaction], T], actor: str, patience: float
    ) -> T:
        for attempt in range(1, ATTEMPTS + 1):
            committing = False
            try:
                with self._engine.connect() as connection, call.using(connection):
                    if patience > PATIENCE:
                        connection.exec_driver_sql(_allow(patience))
                    transaction = Transaction(connection, actor, self._clock())
                    result = work(transaction)
                    transaction.write_changes()
                    committing = True
                    connection.commit()
                    return result
            except sa.exc.DBAPIError as error:
                state = getattr(error.orig, "sqlstate", None)
                # A connection lost in its commit leaves open whether that happened: no retry then.
                lost = error.connection_invalidated and not committing and attempt == 1
                if attempt == ATTEMPTS or call.given_up or not (lost or state in _CONFLICTS):
                    raise
            time.sleep(random.uniform(0, _PAUSE * 2**attempt))  # noqa: S311 - against lockstep
        raise AssertionError

    def close(self) -> None:
        self._threads.shutdown()
        self._engine.dispose()
