"""PostgreSQL query for the latest revisions, on the event loop and on its own connection.

Measured: through the pool and a thread, this query takes more than half of the time of a manifest
GET. libpq's asynchronous calls never block and cost a tenth of that.
"""

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple

import psycopg
from psycopg import conninfo, pq

from registry.metadata.engine.connections import (
    LOCAL_SETTINGS,
    Connections,
    find_connect_options,
    is_full,
)
from registry.metadata.engine.deadlines import REQUEST_TIMEOUT_S
from registry.metadata.engine.error_translation import translate
from registry.metadata.revisions.revisions import MAX_LISTED, Changed, Revisions, listed, unlisted
from registry.oci.names import RepositoryName

if TYPE_CHECKING:
    from registry.metadata.engine.database import Database

_NAME = b"revisions"
"""The name of the prepared statement, which belongs to the session."""

_BIGINT = 20
"""OID of the type in PostgreSQL."""

RECHECK_S = 5.0
"""Seconds after which a session with a server that takes no changes is replaced."""

FULL_PAUSE = 1.0
"""Seconds before a server that had no connection left is asked for one again."""

# One statement, so that all values are of one moment. Repository names contain no comma. With a
# join, the planner would expect millions of rows, because it does not know that the tables have one
# row each. The start time identifies the server: a pooler may route the next statement elsewhere.
_QUERY = f"""
SELECT feed, policy, CASE WHEN feed - $1 BETWEEN 1 AND {MAX_LISTED} THEN (
    SELECT string_agg(repository, ',') FROM change_feed
    WHERE revision > $1 AND revision <= revisions.feed
) END, pg_is_in_recovery()::text, current_setting('transaction_read_only'),
    extract(epoch FROM pg_postmaster_start_time())::text
FROM (
    SELECT (SELECT revision FROM change_feed_revision) AS feed,
        (SELECT revision FROM policy_revision) AS policy
) AS revisions
"""  # noqa: S608 - built from a constant


class _Row(NamedTuple):
    """The result of _QUERY. `names` is comma-separated, or None if there are none or too many."""

    feed: int
    policy: int
    names: str | None
    standby: str
    read_only: str
    server: str


class RevisionQuery:
    """Reader of the latest revisions, for one caller at a time."""

    def __init__(self, database: "Database", connections: Connections) -> None:
        self._database = database
        self._connections = connections
        _, options = connections.url.get_dialect()().create_connect_args(connections.url)
        options = {**options, **find_connect_options(connections.url, connections.settings)}
        self._conninfo = conninfo.make_conninfo("", **options)
        self._session: psycopg.Connection | None = None
        self._opened_at = 0.0
        self._renewals = 0
        self._server = ""
        self._full_at = float("-inf")
        self._read_only = False

    async def ask(self, last: Revisions) -> tuple[Revisions, Changed]:
        """Return the revisions as of now, and the repositories that changed since `last`.

        A lost connection is replaced. Raises DatabaseUnavailableError.
        """
        if time.monotonic() < self._full_at + FULL_PAUSE:
            return await self._ask_through_pool(last)
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                return await self._ask_or_connect(last)
        except (psycopg.Error, OSError) as error:
            self.close()
            if not is_full(error):
                raise translate(error) from error
        except BaseException:
            self.close()  # an answer may still arrive
            raise
        # The server has no connection left. One of the pool works too, only slower.
        self._full_at = time.monotonic()
        return await self._ask_through_pool(last)

    async def _ask_through_pool(self, last: Revisions) -> tuple[Revisions, Changed]:
        query = _QUERY.replace("$1", str(last.feed))
        row = await self._database.read(lambda tx: tx.connection.exec_driver_sql(query).one())
        return self._interpret(_Row(*row), last)

    async def _ask_or_connect(self, last: Revisions) -> tuple[Revisions, Changed]:
        if self._session is not None and self._is_stale():
            self.close()
        if self._session is not None:
            try:
                return self._interpret(await self._fetch(self._session.pgconn, last.feed), last)
            except (psycopg.Error, OSError):
                # The server may have closed the idle connection, which is noticed only now.
                self.close()
        self._renewals = self._connections.renewals
        connecting = asyncio.get_running_loop().run_in_executor(None, self._connect)
        try:
            self._session = await asyncio.shield(connecting)
        except asyncio.CancelledError:
            connecting.add_done_callback(_close_late)
            raise
        self._opened_at = time.monotonic()
        return self._interpret(await self._fetch(self._session.pgconn, last.feed), last)

    def _is_stale(self) -> bool:
        """Return whether a new connection may lead to a different server than this session."""
        old = time.monotonic() > self._opened_at + RECHECK_S
        return self._renewals != self._connections.renewals or (self._read_only and old)

    def _connect(self) -> psycopg.Connection:
        # Not `pq.PGconn.connect`, which blocks all threads of the process until the server answers.
        session = psycopg.connect(self._conninfo, autocommit=True)
        session.pgconn.nonblocking = 0
        try:
            if not self._connections.settings.transaction_pooling:
                # Planning the statement takes five times as long as running it.
                session.execute("SET plan_cache_mode = force_generic_plan")
                _require(session.pgconn.prepare(_NAME, _QUERY.encode(), [_BIGINT]))
        except BaseException:
            session.close()
            raise
        return session

    def _interpret(self, row: "_Row", last: Revisions) -> tuple[Revisions, Changed]:
        """Return the revisions and the changes; reject a standby.

        Raises psycopg.OperationalError if the server is a standby.
        """
        if row.standby == "true":
            raise psycopg.OperationalError("the server is a standby")
        self._read_only = row.read_only == "on"
        revisions = Revisions(row.feed, row.policy)
        if row.server != self._server:
            # The new server's feed may lack changes of the old one, and have as many others.
            if self._server:
                self._connections.renew()
                self._renewals = self._connections.renewals
            self._server = row.server
            return revisions, None
        if row.names is None:
            return revisions, unlisted(last, revisions)
        return revisions, listed(
            last, revisions, [RepositoryName(name) for name in row.names.split(",")]
        )

    async def _fetch(self, connection: pq.abc.PGconn, feed: int) -> "_Row":
        if self._connections.settings.transaction_pooling:
            # All in one message, which is one transaction, so that the pooler does not split it.
            query = _QUERY.replace("$1", str(feed))
            connection.send_query(f"{LOCAL_SETTINGS}; {query}".encode())
        else:
            connection.send_query_prepared(_NAME, [b"%d" % feed])
        row: list[str | None] = []
        while (result := await self._next_result(connection)) is not None:
            if result.status == pq.ExecStatus.TUPLES_OK:
                values = (result.get_value(0, column) for column in range(result.nfields))
                row = [None if value is None else value.decode() for value in values]
            else:
                _require(result)
        if not row:
            raise psycopg.OperationalError("the query failed")
        feed_text, policy, names, standby, read_only, server = row
        return _Row(
            int(feed_text or 0),
            int(policy or 0),
            names,
            standby or "",
            read_only or "",
            server or "",
        )

    @staticmethod
    async def _next_result(connection: pq.abc.PGconn) -> pq.abc.PGresult | None:
        if connection.is_busy():
            await RevisionQuery._wait(connection)
        return connection.get_result()

    @staticmethod
    async def _wait(connection: pq.abc.PGconn) -> None:
        """Return when the result has arrived."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[None] = loop.create_future()
        # The socket is unregistered as soon as possible: libpq closes it when the connection is
        # lost, and the descriptor of the next client may get the same number.
        watched = [connection.socket]

        def look_away() -> None:
            while watched:
                loop.remove_reader(watched.pop())

        def read() -> None:
            try:
                connection.consume_input()
                if not connection.is_busy():
                    look_away()
                    if not answered.done():
                        answered.set_result(None)
            except psycopg.OperationalError as error:
                look_away()
                if not answered.done():
                    answered.set_exception(error)

        loop.add_reader(watched[0], read)
        try:
            await answered
        finally:
            look_away()

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None


def _require(result: pq.abc.PGresult) -> None:
    """Raise psycopg.OperationalError if a statement has failed."""
    if result.status != pq.ExecStatus.COMMAND_OK:
        raise psycopg.OperationalError(result.error_message.decode(errors="replace"))


def _close_late(connecting: asyncio.Future[psycopg.Connection]) -> None:
    """Close a connection that was opened after its caller stopped waiting."""
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().close()
