"""SQLite: WAL, one FIFO writer thread with group commit, and a lock across processes.

Measured: with the busy handler alone, a writer waits 4.6 s and then fails with
"database is locked". A queue with group commit keeps the longest wait of 64 writers under 100 ms.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from msgspec import Struct

from registry import clock
from registry.metadata.engine.group_changes import CommitListener, GroupChanges
from registry.metadata.engine.statements import run_text
from registry.metadata.engine.transaction import SingleRead, Transaction
from registry.metadata.engine.writer_lock import WriterLock
from storage.job_threads import Job, JobThreads, Outcome, finish_jobs

logger = logging.getLogger(__name__)

T = TypeVar("T")

READERS = 8
"""Threads that read."""

BATCH = 64
"""Maximum number of transactions in one group commit."""

BATCH_SECONDS = 0.02
"""Seconds after which a group commits, so that other processes get their turn."""

CHECKPOINT_GROWTH = 4 << 20
"""Bytes that the write-ahead log may grow before a checkpoint."""

CHECKPOINT_COMMITS = 1000
"""Group commits before a checkpoint, even if they wrote little."""

_BEGIN_READ = "BEGIN"
# A deferred transaction that reads and then writes fails at once with "database is locked".
_BEGIN_WRITE = "BEGIN IMMEDIATE"

_NORMAL = 1
_FULL = 2

_PRAGMAS = {
    "journal_mode": "wal",
    "synchronous": _FULL,  # with NORMAL, a power cut loses acknowledged commits
    "foreign_keys": 1,
    "wal_autocheckpoint": 0,  # the writer checkpoints, under its lock
    "journal_size_limit": CHECKPOINT_GROWTH,  # otherwise the log keeps the largest size it ever had
}


def open_engine(path: Path, *, writer: bool) -> sa.Engine:
    """Return an engine whose connections apply and verify `_PRAGMAS`, and begin transactions."""
    engine = _open_bare_engine(path, writer=writer)

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        run_text(connection, _BEGIN_WRITE if writer else _BEGIN_READ)

    return engine


def _open_bare_engine(path: Path, *, writer: bool) -> sa.Engine:
    """Return an engine as `open_engine`, whose user begins transactions itself."""
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        pool_size=16,
        max_overflow=0,
        hide_parameters=True,  # errors are logged, and must not show password hashes
    )

    @sa.event.listens_for(engine, "connect")
    def _connect(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # this code sends BEGIN, not the driver
        for name, value in _PRAGMAS.items():
            connection.execute(f"PRAGMA {name}={value}")
            (actual,) = connection.execute(f"PRAGMA {name}").fetchone()
            if actual != value:
                raise sqlite3.OperationalError(f"PRAGMA {name} is {actual}, not {value}")
        if not writer:
            connection.execute("PRAGMA query_only=1")

    return engine


def _connect(engine: sa.Engine) -> sa.Connection:
    """Return a connection of a bare engine, which for SQLAlchemy is always in a transaction.

    So its user can begin and end transactions with statements. SQLAlchemy's own objects for them
    take more time than a point read.
    """
    connection = engine.connect()
    connection.begin()
    return connection


def create_file(path: Path) -> None:
    """Create the database file with mode 0600 and sync its folder, unless it exists."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class SqliteReader:
    """Threads that each run one read at a time, on a connection of their own.

    Taking a connection from a pool takes more CPU than a point read.
    """

    def __init__(self, path: Path) -> None:
        self.engine = _open_bare_engine(path, writer=False)
        self._own = threading.local()
        self._opened: list[sa.Connection] = []
        self._threads = JobThreads(READERS, "sql-read")

    def start(self, work: Callable[[Transaction], T], *, single: bool = False) -> Job[T]:
        """Start a read, which sees one snapshot. A `single` one runs one prepared statement."""
        return self._threads.start(partial(self._read_single if single else self._read, work))

    def _read(self, work: Callable[[Transaction], T]) -> T:
        connection = self._find_connection()
        run_text(connection, _BEGIN_READ)
        try:
            return work(Transaction(connection, "", clock.now_us()))
        finally:
            connection.connection.rollback()

    def _read_single(self, work: Callable[[Transaction], T]) -> T:
        return work(SingleRead(self._find_connection(), "", clock.now_us()))

    def _find_connection(self) -> sa.Connection:
        """Return the connection of this thread."""
        connection: sa.Connection | None = getattr(self._own, "connection", None)
        if connection is None or connection.invalidated:
            connection = self._own.connection = _connect(self.engine)
            self._opened.append(connection)
        return connection

    def close(self) -> None:
        self._threads.close()
        for connection in self._opened:
            connection.close()
        self.engine.dispose()


class _Member(Struct):
    """One caller's transaction in a group."""

    work: Callable[[Transaction], Any]
    actor: str
    durable: bool
    future: "Future[Any] | Job[Any]"
    result: Any = None
    error: BaseException | None = None


def _settle(members: list[_Member], failure: Exception | None) -> None:
    """Set the result or error of each member. `failure` is an error of the whole group."""
    jobs: dict[asyncio.AbstractEventLoop, list[Outcome]] = {}
    for member in members:
        error = failure or member.error
        if isinstance(member.future, Job):
            outcome = (member.future, member.result, error)
            jobs.setdefault(member.future.get_loop(), []).append(outcome)
        elif error is not None:
            member.future.set_exception(error)
        else:
            member.future.set_result(member.result)
    for outcomes in jobs.values():
        finish_jobs(outcomes)


def _is_open(connection: sa.Connection) -> bool:
    """Return whether the transaction is open, which SQLite rolls back after some errors."""
    return bool(getattr(connection.connection.dbapi_connection, "in_transaction", False))


class SqliteWriter:
    """The only thread of this process that writes."""

    def __init__(self, path: Path, clock: Callable[[], int]) -> None:
        self._log = f"{path}-wal"
        self._clock = clock
        self._engine = _open_bare_engine(path, writer=True)
        self._connection: sa.Connection | None = None
        self._level: int | None = None
        self._lock = WriterLock(path)
        self._queue: queue.SimpleQueue[_Member | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._closed = False
        self._commits = 0
        self._wal = 0
        self.listener: CommitListener | None = None
        self._thread = threading.Thread(target=self._run, name="sql-write", daemon=True)
        self._thread.start()

    def submit(
        self, work: Callable[[Transaction], Any], actor: str, *, durable: bool = True
    ) -> "Future[Any]":
        """Queue `work`. The future completes after the commit that made it durable.

        Without `durable`, the commit is not synced unless another member of its group needs it.
        """
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()  # queued work cannot be cancelled
        self._put(_Member(work, actor, durable, future))
        return future

    def start(
        self, work: Callable[[Transaction], T], actor: str, *, durable: bool = True
    ) -> Job[T]:
        """Queue `work` as `submit` does, for a coroutine."""
        job: Job[T] = Job(loop=asyncio.get_running_loop())
        self.take_over(job, work, actor, durable=durable)
        return job

    def take_over(
        self, job: Job[T], work: Callable[[Transaction], T], actor: str, *, durable: bool
    ) -> None:
        """Queue `work` as the rest of a job, from any thread. Raises RuntimeError after `close`."""
        self._put(_Member(work, actor, durable, job))

    def _put(self, member: _Member) -> None:
        with self._gate:
            if self._closed:
                raise RuntimeError("the database is closed")
            self._queue.put(member)

    def close(self) -> None:
        """Write the queued transactions, checkpoint and stop."""
        with self._gate:
            self._closed = True
            self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        waiting: deque[_Member | None] = deque()
        while True:
            if not waiting:
                waiting.append(self._queue.get())
            with self._lock.held():
                # Transactions that arrived while this process waited for the lock join the group.
                with contextlib.suppress(queue.Empty):
                    while len(waiting) < BATCH:
                        waiting.append(self._queue.get_nowait())
                if waiting[0] is None:
                    # Closing the last connection checkpoints, so it happens under the lock, too.
                    self._drop_connection()
                    self._engine.dispose()
                    break
                group = itertools.takewhile(lambda m: m is not None, waiting)
                members = [member for member in group if member is not None]
                for _ in range(self._commit(members)):
                    waiting.popleft()
        self._lock.close()

    def _commit(self, members: list[_Member]) -> int:
        """Run members until the time limit, commit and set their results.

        Returns the number of members that were run.
        """
        done = 0
        started = time.monotonic()
        failure: Exception | None = None
        listener, changes = self.listener, GroupChanges()
        try:
            connection = self._connection = self._connection or _connect(self._engine)
            self._begin(connection, members)
            if len(members) == 1:
                done = 1
                self._run_alone(connection, members[0], changes)
            while done < len(members):
                done += 1
                self._run_member(connection, members[done - 1], changes)
                if time.monotonic() - started > BATCH_SECONDS:
                    break
            if listener is not None and not _is_open(connection):
                listener = None
            if listener is not None:
                listener.before_commit(Transaction(connection, "", self._clock()), changes)
            connection._commit_impl()  # noqa: SLF001 - with its events and errors, see `_connect`
            if listener is not None:
                listener.after_commit()
        except Exception as error:  # noqa: BLE001 - each caller gets it
            failure = error
            # the transaction did not begin, so all members get this failure
            done = done or len(members)
        _settle(members[:done], failure)
        # The error refers to this frame, which would keep manifests of 4 MiB alive.
        members.clear()
        if failure is None:
            self._checkpoint()
        else:
            self._drop_connection()
        return done

    def _drop_connection(self) -> None:
        """Close the connection, which the next group opens again."""
        connection, self._connection, self._level = self._connection, None, None
        if connection is not None:
            connection.close()

    def _begin(self, connection: sa.Connection, members: list[_Member]) -> None:
        """Begin the transaction of a group, whose commit is synced if any member is durable.

        The level of a connection cannot change within a transaction. A synced commit syncs the
        whole log, and so the commits before it.
        """
        level = _FULL if any(member.durable for member in members) else _NORMAL
        if level != self._level:
            run_text(connection, f"PRAGMA synchronous={level}")
            self._level = level
        run_text(connection, _BEGIN_WRITE)

    def _run_member(
        self, connection: sa.Connection, member: _Member, changes: GroupChanges
    ) -> None:
        # Not `begin_nested`, for which SQLAlchemy compiles two statements each time.
        run_text(connection, "SAVEPOINT member")
        try:
            transaction = self._do_work(connection, member)
            run_text(connection, "RELEASE member")
            changes.add(transaction)
        except BaseException as error:
            if not _is_open(connection):
                raise  # a full disk or an I/O error rolled the whole group back
            run_text(connection, "ROLLBACK TO member")
            run_text(connection, "RELEASE member")
            member.error = error

    def _run_alone(self, connection: sa.Connection, member: _Member, changes: GroupChanges) -> None:
        """Run the only member without a savepoint, for which SQLite copies each changed page."""
        try:
            changes.add(self._do_work(connection, member))
        except BaseException as error:
            if not _is_open(connection):
                raise
            run_text(connection, "ROLLBACK")
            member.error = error

    def _do_work(self, connection: sa.Connection, member: _Member) -> Transaction:
        transaction = Transaction(connection, member.actor, self._clock())
        member.result = member.work(transaction)
        transaction.write_changes()
        return transaction

    def _checkpoint(self) -> None:
        """Copy the log into the database file if it is due.

        Called under the lock, because SQLite before 3.51.3 can corrupt the file if a checkpoint and
        a log reset of two processes overlap.
        """
        self._commits += 1
        try:
            size = os.stat(self._log).st_size  # noqa: PTH116 - once for each commit
            self._wal = min(self._wal, size)
            if size < self._wal + CHECKPOINT_GROWTH and self._commits < CHECKPOINT_COMMITS:
                return
            self._commits, self._wal = 0, size
            if self._connection is not None:
                run_text(self._connection, "PRAGMA wal_checkpoint(PASSIVE)")
        except (OSError, sa.exc.SQLAlchemyError):
            # The log keeps the data, and the next checkpoint tries again.
            logger.exception("checkpoint failed")
