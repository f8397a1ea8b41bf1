"""Access to the database: `await db.read(fn)` and `await db.write(fn)` run `fn` on a thread.

`fn` is a plain function, so that a transaction cannot contain an await.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa

from registry import clock, database_url
from registry.errors import ConfigError, DatabaseFullError
from registry.metadata.engine import filesystems, sqlite
from registry.metadata.engine.connections import Connections, WrongServerError
from registry.metadata.engine.deadlines import REQUEST_TIMEOUT_S, await_with_deadline
from registry.metadata.engine.disk_reserve import ReserveFile
from registry.metadata.engine.error_translation import translate
from registry.metadata.engine.group_changes import CommitListener
from registry.metadata.engine.postgres import PostgresReader, PostgresWriter
from registry.metadata.engine.settings import DEFAULT, DatabaseSettings
from registry.metadata.engine.sqlite import SqliteReader, SqliteWriter
from registry.metadata.engine.transaction import Transaction
from registry.metadata.tables import schema_version
from storage.job_threads import Job, Then
from storage.shield import run_to_completion

T = TypeVar("T")

_PROOF_S = 5.0
"""Seconds for which a commit proves that the database accepts changes."""

_PROBE_TIMEOUT_S = 2.0
"""Seconds within which a reachable database answers the smallest query."""


class _RolledBackError(Exception):
    """Raised by a probe to roll its transaction back."""


class Database:
    """An open database with a pool of readers and a writer."""

    def __init__(self, url: str, pool: DatabaseSettings = DEFAULT) -> None:
        """Open the SQLAlchemy URL `url`. `pool` applies to PostgreSQL.

        Raises ConfigError if the URL is invalid or names an unsupported database.
        """
        self.url = parse_url(url)
        self.connections: Connections | None = None
        self._written_at = float("-inf")
        self._writer: SqliteWriter | PostgresWriter
        self._readers: SqliteReader | PostgresReader
        if self.is_embedded(url):
            path = self.path
            sqlite.create_file(path)
            self.reserve: ReserveFile | None = ReserveFile(path)
            self._writer = SqliteWriter(path, clock.now_us)
            self._readers = SqliteReader(path)
            self._reader = self._readers.engine
        else:
            self.reserve = None
            self.connections = Connections(self.url, pool)
            self._reader = self.connections.engine
            self._writer = PostgresWriter(self.connections, pool.write_connections, clock.now_us)
            self._readers = PostgresReader(self.connections, pool.read_connections, clock.now_us)

    @staticmethod
    def is_embedded(url: str) -> bool:
        """Return whether `url` names a file that this process opens itself."""
        return parse_url(url).get_backend_name() == "sqlite"

    @staticmethod
    def find_remote_type(url: str) -> str:
        """Return the file system type of an embedded database, if SQLite cannot rely on it.

        Returns "" otherwise.
        """
        file = parse_url(url).database
        return (
            filesystems.find_remote_type(Path(file)) if Database.is_embedded(url) and file else ""
        )

    @property
    def embedded(self) -> bool:
        """Whether the database is a file of this process."""
        return self.url.get_backend_name() == "sqlite"

    @property
    def path(self) -> Path:
        """The file of an embedded database."""
        return Path(self.url.database or "")

    async def read(
        self,
        work: Callable[[Transaction], T],
        *,
        timeout_s: float = REQUEST_TIMEOUT_S,
        single: bool = False,
    ) -> T:
        """Run `work` on a read connection.

        `work` sees one snapshot on SQLite, and on PostgreSQL if `timeout_s` is longer than the
        default. `single` work runs one prepared statement, for which SQLite needs no transaction.
        On PostgreSQL, raises DatabaseUnavailableError after `timeout_s` seconds. A cancelled call
        does not wait for `work`, so that a stalled database does not block the caller.
        """
        readers = self._readers
        try:
            if isinstance(readers, PostgresReader):
                begin = partial(readers.submit, work, timeout_s)
                return await await_with_deadline(begin, self._probe, timeout_s)
            return await readers.start(work, single=single)
        except (sa.exc.SQLAlchemyError, WrongServerError) as error:
            raise translate(error) from None

    async def write(
        self,
        work: Callable[[Transaction], T],
        *,
        actor: str,
        timeout_s: float = REQUEST_TIMEOUT_S,
        may_use_reserve: bool = False,
        durable: bool = True,
    ) -> T:
        """Run `work` in a transaction and return when the transaction is durable.

        `work` may be called more than once, because conflicts are retried, so it must have no other
        side effects. An exception of `work` rolls the transaction back and propagates. After a
        DatabaseUnavailableError, the transaction may have been committed nevertheless. `timeout_s`
        is as in `read`. `may_use_reserve` is for transactions that help to free space: they may use
        the disk reserve if the disk is full.

        Without `durable`, the transaction is committed but not synced: it survives the end of the
        process, and is lost in a power cut unless a later transaction was durable.
        """
        try:
            return await self._write(work, actor, timeout_s, durable=durable)
        except DatabaseFullError:
            if not may_use_reserve or self.reserve is None:
                raise
        await asyncio.to_thread(self.reserve.release)
        return await self._write(work, actor, timeout_s, durable=durable)

    async def _write(
        self, work: Callable[[Transaction], T], actor: str, timeout_s: float, *, durable: bool
    ) -> T:
        writer = self._writer
        try:
            if isinstance(writer, PostgresWriter):
                result = await await_with_deadline(
                    lambda: writer.submit(work, actor, timeout_s, durable=durable),
                    self._probe,
                    timeout_s,
                    shielded=True,
                )
            else:
                result = await run_to_completion(writer.start(work, actor, durable=durable))
        except (sa.exc.SQLAlchemyError, WrongServerError) as error:
            self._written_at = float("-inf")
            raise translate(error) from None
        self._written_at = time.monotonic()
        return result

    async def write_after(
        self,
        start: Callable[[Then], Awaitable[T]],
        work: Callable[[Transaction], T],
        *,
        actor: str,
        durable: bool = True,
    ) -> T:
        """Run `work` as `write` does, after a job on another thread.

        `start` starts that job, which is passed on to the thread of the database without a turn of
        the event loop. Only for embedded databases.
        """
        writer = self._writer
        assert isinstance(writer, SqliteWriter)  # noqa: S101 - the caller has checked `embedded`

        def then(job: Job[T]) -> None:
            writer.take_over(job, work, actor, durable=durable)

        try:
            result = await start(then)
        except sa.exc.SQLAlchemyError as error:
            self._written_at = float("-inf")
            raise translate(error) from None
        self._written_at = time.monotonic()
        return result

    def listen(self, listener: CommitListener) -> None:
        """Tell a listener of the commits of this process to an embedded database."""
        if isinstance(self._writer, SqliteWriter):
            self._writer.listener = listener

    async def require_writable(self, *, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        """Raise DatabaseUnavailableError unless the database accepts changes.

        Nothing is committed. A recent commit is sufficient proof: under load, a probe would have to
        wait for its turn.
        """
        if time.monotonic() < self._written_at + _PROOF_S:
            return

        def probe(tx: Transaction) -> None:
            # A read-only database refuses a row lock too, and rolling it back needs no sync.
            lock = sa.select(schema_version.c.version).with_for_update(read=True, key_share=True)
            tx.execute(lock).close()
            raise _RolledBackError

        with contextlib.suppress(_RolledBackError):
            await self.write(probe, actor="", timeout_s=timeout_s)

    async def _probe(self) -> None:
        """Send a trivial query. Raises DatabaseUnavailableError unless it is answered at once."""
        await self.read(
            lambda tx: tx.execute(sa.select(1)).scalar_one(), timeout_s=_PROBE_TIMEOUT_S
        )

    async def close(self) -> None:
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._readers.close()
        self._writer.close()
        if self.connections is not None:
            self.connections.close()


def parse_url(text: str) -> sa.URL:
    """Parse a SQLAlchemy URL.

    Raises ConfigError if it is invalid or names an unsupported database.
    """
    try:
        return sa.make_url(database_url.normalize(text))
    except ConfigError as problem:
        raise ConfigError(f"database.url{problem.message}") from None
