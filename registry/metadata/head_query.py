"""One question to PostgreSQL, asked on the event loop, on a connection that asks nothing else.

Measured: through the pool and a thread the question costs more than half of a manifest's GET;
libpq's own asynchronous calls never block and cost a tenth of that.
"""

import asyncio

import psycopg
import sqlalchemy as sa
from psycopg import conninfo, pq

from registry.errors import DatabaseUnavailableError
from registry.metadata.call import PATIENCE, UNAVAILABLE
from registry.metadata.heads import MOST, Changed, Heads, listed, unlisted
from registry.metadata.postgres import CONNECT
from registry.oci.names import RepositoryName

_BIGINT = 20
"""PostgreSQL's number of the type."""

# One statement, so that all of it is of one moment. A name holds no comma. As a join the planner
# would expect millions of rows, of tables that it does not know to have one.
_QUERY = f"""
SELECT feed, policy, CASE WHEN feed - $1 BETWEEN 1 AND {MOST} THEN (
    SELECT string_agg(repository, ',') FROM feed WHERE number > $1 AND number <= heads.feed
) END FROM (
    SELECT (SELECT number FROM feed_head) AS feed, (SELECT number FROM policy_head) AS policy
) AS heads
""".encode()  # noqa: S608 - of a constant


class HeadQuery:
    """Reads the heads. One question at a time: whoever asks waits for his answer."""

    def __init__(self, url: sa.URL) -> None:
        _, options = url.get_dialect()().create_connect_args(url)
        self._conninfo = conninfo.make_conninfo("", **{**options, **CONNECT})
        self._session: psycopg.Connection | None = None

    async def ask(self, last: Heads) -> tuple[Heads, Changed]:
        """The heads as of now, and what changed since `last`; DatabaseUnavailableError.

        A lost connection is made anew.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._ask_or_connect(last)
        except (psycopg.Error, OSError) as error:
            self.close()
            raise DatabaseUnavailableError(UNAVAILABLE) from error
        except BaseException:
            self.close()  # an answer may still be under way
            raise

    async def _ask_or_connect(self, last: Heads) -> tuple[Heads, Changed]:
        if self._session is not None:
            try:
                return await self._ask(self._session.pgconn, last)
            except (psycopg.Error, OSError):
                # It may have been closed while nobody asked: that is found out only now.
                self.close()
        connecting = asyncio.get_running_loop().run_in_executor(None, self._connect)
        try:
            self._session = await asyncio.shield(connecting)
        except asyncio.CancelledError:
            connecting.add_done_callback(_close_late)
            raise
        return await self._ask(self._session.pgconn, last)

    def _connect(self) -> psycopg.Connection:
        # Not `pq.PGconn.connect`, which lets no thread of the process run until the server answers.
        session = psycopg.connect(self._conninfo, autocommit=True)
        session.pgconn.nonblocking = 0
        return session

    @staticmethod
    async def _ask(connection: pq.abc.PGconn, last: Heads) -> tuple[Heads, Changed]:
        connection.send_query_params(_QUERY, [str(last.feed).encode()], [_BIGINT])
        await HeadQuery._wait(connection)
        result = connection.get_result()
        if result is None or result.status != pq.ExecStatus.TUPLES_OK:
            raise psycopg.OperationalError("the query failed")
        feed, policy, names = (result.get_value(0, column) for column in range(3))
        while connection.get_result() is not None:
            pass
        heads = Heads(int(feed or b""), int(policy or b""))
        if names is None:
            return heads, unlisted(last, heads)
        return heads, listed(
            last, heads, [RepositoryName(name) for name in names.decode().split(",")]
        )

    @staticmethod
    async def _wait(connection: pq.abc.PGconn) -> None:
        """Return when the answer is there."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[None] = loop.create_future()
        # Looked at once, and watched no longer than it is good: libpq closes the socket when it is
        # lost, and the next client's may get its number.
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


def _close_late(connecting: asyncio.Future[psycopg.Connection]) -> None:
    """Close a connection that came when nobody waited for it any more."""
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().close()
