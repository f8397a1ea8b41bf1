"""Connections to PostgreSQL: options, and the pool that readers and writers share."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import sqlalchemy as sa

from registry.errors import SchemaError
from registry.metadata.engine.fair_pool import FairPool
from registry.metadata.engine.settings import DEFAULT, DatabaseSettings

WAIT_S = 3.5
"""Seconds that a caller waits for a connection, as long as a request waits for the database."""

IDLE_S = 30.0
"""Seconds after which an idle connection is closed, so that other processes can use it."""

_TRIM_EVERY = 10.0

_FULL_WAIT = 2.0
"""Seconds to wait for a free connection if the server has none left for this process.

Shorter than WAIT, because readiness checks have a shorter timeout and must report the reason.
"""

_FULL_PAUSE = 0.1
"""Seconds between two attempts to connect to a server that has no free connection."""

_RENEW_PAUSE = 1.0
"""Minimum seconds between two replacements of all connections."""

_ENCODING = "UTF8"

_SESSION = {
    # All queries are small: compiling one takes longer than running it.
    "jit": "off",
    # The server times out before the client does, so that the connection stays usable.
    "lock_timeout": "2500ms",
    "statement_timeout": "3s",
    # A client that is cut off would keep its locks for hours, including that of the feed's counter.
    "idle_in_transaction_session_timeout": "4s",
}

_KEEPALIVES = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}

_CONNECT = {
    "connect_timeout": 3,
    # A server that has vanished closes no connection.
    "tcp_user_timeout": 4000,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
}

LOCAL_SETTINGS = "; ".join(f"SET LOCAL {name} = '{value}'" for name, value in _SESSION.items())
"""Timeouts set at the start of each transaction if a pooler may change the session."""

READ_ONLY = "25006"
"""SQLSTATE read_only_sql_transaction: the server is a standby or was made read-only."""

_FULL = (
    # PostgreSQL sends SQLSTATE 53300 with these, but libpq drops it if no session was made.
    "too many clients",
    "too many connections",
    "remaining connection slots are reserved",
    # PgBouncer.
    "no more connections allowed",
)


def find_connect_options(url: sa.URL, pool: DatabaseSettings) -> dict[str, Any]:
    """Return connection parameters that limit the time of statements and reject standbys."""
    options: dict[str, Any] = {**_CONNECT, **_find_common_options(url)}
    if not pool.transaction_pooling:
        settings = {**_SESSION, **_KEEPALIVES}
        options["options"] = " ".join(f"-c {name}={value}" for name, value in settings.items())
    return options


def _find_common_options(url: sa.URL) -> dict[str, Any]:
    options = {"client_encoding": "utf8", "application_name": "moorage"}
    if "target_session_attrs" not in url.query:
        # A standby lags behind: it would show deleted tags and accept revoked permissions.
        options["target_session_attrs"] = "primary"
    return options


def require_utf8(connection: Any) -> None:
    """Raise SchemaError unless the database of a psycopg connection is encoded as UTF-8."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != _ENCODING:
        name = connection.info.dbname
        raise SchemaError(
            f'the database "{name}" has the encoding {encoding}, but Moorage requires {_ENCODING}; '
            f"run CREATE DATABASE {name}_utf8 ENCODING '{_ENCODING}' TEMPLATE template0, and set "
            "database.url to that database"
        )


def is_full(error: Exception) -> bool:
    """Return whether a connection was refused because the server has none left."""
    text = str(error)
    return any(each in text for each in _FULL)


def open_engine(url: sa.URL, pool: DatabaseSettings = DEFAULT) -> sa.Engine:
    """Return an engine with timeouts on all statements.

    Connections are not tested before use, because that would double the time of a read. A caller
    whose connection is lost takes another one.
    """
    engine = sa.create_engine(
        url,
        poolclass=FairPool,
        pool_size=pool.read_connections + pool.write_connections,
        pool_timeout=WAIT_S,
        hide_parameters=True,  # errors are logged, and must not show password hashes
        connect_args=find_connect_options(url, pool) | find_driver_options(pool),
    )
    _require_utf8(engine)
    return engine


def open_plain_engine(url: sa.URL, **options: Any) -> sa.Engine:
    """Return an engine for one long task, such as a migration, without a pool and without timeouts.

    It also works with a pooler that may give each transaction a different session.
    """
    if url.get_backend_name() == "sqlite":
        return sa.create_engine(url, poolclass=sa.NullPool, **options)
    connect: dict[str, Any] = {"connect_timeout": 10, **_find_common_options(url)}
    connect |= {"prepare_threshold": None}
    engine = sa.create_engine(url, poolclass=sa.NullPool, connect_args=connect, **options)
    _require_utf8(engine)
    return engine


def find_driver_options(pool: DatabaseSettings) -> dict[str, Any]:
    """Return the parameters of psycopg itself."""
    # A prepared statement belongs to a session, and the next transaction may get another one.
    return {"prepare_threshold": None} if pool.transaction_pooling else {}


def _require_utf8(engine: sa.Engine) -> None:
    @sa.event.listens_for(engine, "do_connect")
    def _connect(dialect: sa.Dialect, _record: object, args: Any, options: Any) -> Any:
        # Before SQLAlchemy's own queries, which fail with TypeError in other encodings.
        connection = dialect.connect(*args, **options)
        try:
            require_utf8(connection)
        except SchemaError:
            connection.close()
            raise
        return connection


class WrongServerError(Exception):
    """A pooler routed a transaction to a standby."""


class Connections:
    """The connections of a process, shared by its readers and writers.

    The server may have fewer left than the pool's size. One is enough: callers then wait in a
    queue.
    """

    def __init__(self, url: sa.URL, pool: DatabaseSettings) -> None:
        self.url = url
        self.settings = pool
        self.renewals = 0
        """Number of times that all connections were replaced because they led to the wrong server.
        """
        self._renewed_at = float("-inf")
        self.engine = open_engine(url, pool)
        self._reading = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        sa.event.listen(self.engine, "handle_error", self._check_read_only)
        self._closed = threading.Event()
        self._trimmer = threading.Thread(target=self._trim, name="sql-trim", daemon=True)
        self._trimmer.start()

    @property
    def pool(self) -> FairPool:
        return cast("FairPool", self.engine.pool)

    @contextlib.contextmanager
    def taken(self, abandoned: Callable[[], bool], *, writing: bool) -> Iterator[sa.Connection]:
        """Yield a connection. `abandoned` reports whether the caller has stopped waiting for it."""
        engine = self.engine if writing or self.settings.transaction_pooling else self._reading
        with self._connect(engine, abandoned) as connection:
            yield connection

    def prepare(self, connection: sa.Connection) -> None:
        """Begin a transaction through a pooler: set its timeouts, and reject a standby.

        A direct connection has both from its start.
        """
        if self.settings.transaction_pooling:
            # One round trip: without parameters, libpq sends several statements at once.
            standby = f"SELECT pg_catalog.pg_is_in_recovery(); {LOCAL_SETTINGS}"
            if connection.exec_driver_sql(standby).scalar_one():
                connection.invalidate()
                raise WrongServerError

    def renew(self) -> None:
        """Replace all connections, because the address now leads to a different server."""
        self.renewals += 1
        self.engine.dispose()

    def close(self) -> None:
        self._closed.set()
        self._trimmer.join()
        self.engine.dispose()

    def _connect(self, engine: sa.Engine, abandoned: Callable[[], bool]) -> sa.Connection:
        until = time.monotonic() + _FULL_WAIT
        while True:
            try:
                return engine.connect()
            except sa.exc.DBAPIError as error:
                if not is_full(error) or abandoned() or time.monotonic() > until:
                    raise
                if not self.pool.lower_limit():
                    time.sleep(_FULL_PAUSE)

    def _check_read_only(self, context: sa.ExceptionContext) -> None:
        """Treat a server that takes no changes as lost.

        After a failover, a proxy leads new connections to the new primary and keeps the old ones
        open.
        """
        if getattr(context.original_exception, "sqlstate", None) != READ_ONLY:
            return
        context.is_disconnect = True
        now = time.monotonic()
        # A primary that was made read-only still serves reads, so do not reconnect all the time.
        context.invalidate_pool_on_disconnect = now > self._renewed_at + _RENEW_PAUSE
        if context.invalidate_pool_on_disconnect:
            self._renewed_at = now
            self.renewals += 1

    def _trim(self) -> None:
        while not self._closed.wait(_TRIM_EVERY):
            self.pool.trim(IDLE_S)
