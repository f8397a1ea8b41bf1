"""One question to PostgreSQL, asked on the event loop, on a connection that asks nothing else.

Measured: through the pool and a thread the question costs more than half of a manifest's GET;
libpq's own asynchronous calls never block and cost a tenth of that.
"""

import asyncio

import psycopg
import sqlalchemy as sa
from psycopg import conninfo, pq

from registry.errors import DatabaseUnavailableError
from registry.metadata.postgres import CONNECT

PATIENCE = 4.0
"""Seconds to wait for an answer: the server has vanished then."""

_QUERY = b"SELECT number FROM policy_head"


class HeadQuery:
    """Reads the policy's number. One question at a time: whoever asks waits for his answer."""

    def __init__(self, url: sa.URL) -> None:
        _, options = url.get_dialect()().create_connect_args(url)
        self._conninfo = conninfo.make_conninfo("", **{**options, **CONNECT})
        self._connection: pq.abc.PGconn | None = None

    async def ask(self) -> int:
        """The number as of now; DatabaseUnavailableError. A lost connection is made anew."""
        for is_last in (False, True):
            try:
                async with asyncio.timeout(PATIENCE):
                    if self._connection is None:
                        self._connection = await asyncio.to_thread(self._connect)
                    return await self._ask(self._connection)
            except (psycopg.Error, OSError, TimeoutError) as error:
                # An idle connection may have been closed meanwhile: that is found out only now.
                known = self._connection
                self.close()
                if is_last or known is None:
                    raise DatabaseUnavailableError("the database cannot answer now") from error
            except BaseException:
                self.close()  # an answer may still be under way
                raise
        raise AssertionError

    def _connect(self) -> pq.abc.PGconn:
        connection = pq.PGconn.connect(self._conninfo.encode())
        if connection.status != pq.ConnStatus.OK:
            raise psycopg.OperationalError("no connection")
        return connection

    @staticmethod
    async def _ask(connection: pq.abc.PGconn) -> int:
        loop = asyncio.get_running_loop()
        connection.send_query_params(_QUERY, None)
        answered: asyncio.Future[None] = loop.create_future()

        def read() -> None:
            try:
                connection.consume_input()
                if not connection.is_busy() and not answered.done():
                    answered.set_result(None)
            except psycopg.OperationalError as error:
                if not answered.done():
                    answered.set_exception(error)

        loop.add_reader(connection.socket, read)
        try:
            await answered
        finally:
            loop.remove_reader(connection.socket)
        result = connection.get_result()
        if result is None or result.status != pq.ExecStatus.TUPLES_OK:
            raise psycopg.OperationalError("the query failed")
        value = result.get_value(0, 0)
        while connection.get_result() is not None:
            pass
        return int(value or b"")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.finish()
            self._connection = None
