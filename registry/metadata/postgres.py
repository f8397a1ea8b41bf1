"""PostgreSQL: short transactions at READ COMMITTED on threads of their own, retried on conflict."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import sqlalchemy as sa

from registry.metadata.transaction import Transaction

THREADS = 8
ATTEMPTS = 4

_CONFLICTS = {
    "40001",  # serialization_failure
    "40P01",  # deadlock_detected
    "23503",  # foreign_key_violation: what was there when we looked has gone; look again
    "23505",  # unique_violation: what was not there has come; look again
}


CONNECT = {
    "connect_timeout": 3,
    # A server that has vanished answers nothing, not even that it has.
    "tcp_user_timeout": 4000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "options": "-c statement_timeout=30000 -c lock_timeout=10000",
    "application_name": "moorage",
}


def open_engine(url: sa.URL, *, writer: bool) -> sa.Engine:
    """An engine whose connections are tested before use and whose statements cannot hang."""
    engine = sa.create_engine(
        url,
        pool_size=THREADS,
        max_overflow=0,
        pool_pre_ping=True,
        pool_timeout=5,
        hide_parameters=True,  # an error is logged, and must show no hash of a password
        connect_args=CONNECT,
    )
    return engine if writer else engine.execution_options(isolation_level="AUTOCOMMIT")


class PostgresWriter:
    """Threads that each run one transaction at a time."""

    def __init__(self, url: sa.URL, clock: Callable[[], int]) -> None:
        self._engine = open_engine(url, writer=True)
        self._clock = clock
        self._threads = ThreadPoolExecutor(THREADS, "sql-write")

    def submit(self, work: Callable[[Transaction], Any], actor: str) -> "Future[Any]":
        return self._threads.submit(self._transact, work, actor)

    def _transact(self, work: Callable[[Transaction], Any], actor: str) -> Any:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with self._engine.begin() as connection:
                    transaction = Transaction(connection, actor, self._clock())
                    result = work(transaction)
                    transaction.write_changes()
            except sa.exc.DBAPIError as error:
                # No retry once the commit may have happened: those errors are of other classes.
                if attempt == ATTEMPTS or getattr(error.orig, "sqlstate", None) not in _CONFLICTS:
                    raise
            else:
                return result
        raise AssertionError

    def close(self) -> None:
        self._threads.shutdown()
        self._engine.dispose()
