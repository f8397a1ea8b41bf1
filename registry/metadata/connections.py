"""Connections to PostgreSQL: how they are opened, shared by readers and writers, and given back."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import sqlalchemy as sa

from registry.errors import SchemaError
from registry.metadata.fair_pool import FairPool
from registry.metadata.pool_settings import DEFAULT, PoolSettings

WAIT = 3.5
"""Seconds that a caller waits for a connection: as long as a request waits for the database."""

IDLE = 30.0
"""Seconds after which an idle connection is closed, so that other processes can have it."""

_TRIM_EVERY = 10.0

_FULL_WAIT = 2.0
"""Seconds in which a connection may become free, on a server that has none left for this process.

Readiness is asked for with less patience than WAIT, and has to name the reason.
"""

_FULL_PAUSE = 0.1
"""Seconds between two attempts to connect to a server that has no connection for this process."""

_RENEW_PAUSE = 1.0
"""Seconds for which connections are kept after they were replaced."""

_ENCODING = "UTF8"

_SESSION = {
    # All questions are small: to compile one takes longer than to answer it.
    "jit": "off",
    # The server gives up before we do: what it tells keeps its connection.
    "lock_timeout": "2500ms",
    "statement_timeout": "3s",
    # A client cut off in the middle would keep its locks for hours, the counter's of the feed too.
    "idle_in_transaction_session_timeout": "4s",
}

_KEEPALIVES = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}

_CONNECT = {
    "connect_timeout": 3,
    # A server that has vanished answers nothing, not even that it has.
    "tcp_user_timeout": 4000,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
}

LOCAL_SETTINGS = "; ".join(f"SET LOCAL {name} = '{value}'" for name, value in _SESSION.items())
"""What a transaction begins with where sessions cannot be relied on."""

READ_ONLY = "25006"
"""SQLSTATE read_only_sql_transaction: the server is a standby, or was made read-only."""

_FULL = (
    # PostgreSQL sends SQLSTATE 53300 with these, but libpq drops it where no session was made.
    "too many clients",
    "too many connections",
    "remaining connection slots are reserved",
    # PgBouncer.
    "no more connections allowed",
)


def find_connect_options(url: sa.URL, pool: PoolSettings) -> dict[str, Any]:
    """Connection parameters that keep statements from hanging and standbys from being used."""
    options: dict[str, Any] = {**_CONNECT, **_find_common_options(url)}
    if not pool.transaction_pooling:
        settings = {**_SESSION, **_KEEPALIVES}
        options["options"] = " ".join(f"-c {name}={value}" for name, value in settings.items())
    return options


def _find_common_options(url: sa.URL) -> dict[str, Any]:
    options = {"client_encoding": "utf8", "application_name": "moorage"}
    if "target_session_attrs" not in url.query:
        # A standby lags behind: it would show deleted tags and honour revoked rights.
        options["target_session_attrs"] = "primary"
    return options


def require_utf8(connection: Any) -> None:
    """Raise SchemaError unless the database of a psycopg connection is encoded as UTF-8."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != _ENCODING:
        name = connection.info.dbname
        raise SchemaError(
            f'the database "{name}" has the encoding {encoding}, and Moorage needs {_ENCODING}. '
            f"Create another and name it in [database] url: CREATE DATABASE {name}_utf8 "
            f"ENCODING '{_ENCODING}' TEMPLATE template0"
        )


def is_full(error: Exception) -> bool:
    """Whether a connection was refused because the server has none left."""
    text = str(error)
    return any(each in text for each in _FULL)


def open_engine(url: sa.URL, pool: PoolSettings = DEFAULT) -> sa.Engine:
    """An engine whose statements cannot hang. Connections are not tested before use: it would
    double the time of a read. A caller that finds a lost one takes another.
    """
    engine = sa.create_engine(
        url,
        poolclass=FairPool,
        pool_size=pool.readers + pool.writers,
        pool_timeout=WAIT,
        hide_parameters=True,  # an error is logged, and must show no hash of a password
        connect_args=find_connect_options(url, pool) | find_driver_options(pool),
    )
    _require_utf8(engine)
    return engine


def open_plain_engine(url: sa.URL, **options: Any) -> sa.Engine:
    """An engine for one long task, such as a migration: no pool and no time-outs.

    It works through a pooler as well, which may give each transaction another session.
    """
    if url.get_backend_name() == "sqlite":
        return sa.create_engine(url, poolclass=sa.NullPool, **options)
    connect: dict[str, Any] = {"connect_timeout": 10, **_find_common_options(url)}
    connect |= {"prepare_threshold": None}
    engine = sa.create_engine(url, poolclass=sa.NullPool, connect_args=connect, **options)
    _require_utf8(engine)
    return engine


def find_driver_options(pool: PoolSettings) -> dict[str, Any]:
    """Parameters of psycopg itself."""
    # A prepared statement belongs to a session, and the next transaction may get another.
    return {"prepare_threshold": None} if pool.transaction_pooling else {}


def _require_utf8(engine: sa.Engine) -> None:
    @sa.event.listens_for(engine, "do_connect")
    def _connect(dialect: sa.Dialect, _record: object, args: Any, options: Any) -> Any:
        # Before SQLAlchemy's own questions, which fail with TypeError in other encodings.
        connection = dialect.connect(*args, **options)
        try:
            require_utf8(connection)
        except SchemaError:
            connection.close()
            raise
        return connection


class WrongServerError(Exception):
    """A pooler led a transaction to a standby."""


class Connections:
    """The connections of a process, shared by its readers and writers.

    The server may have fewer left than the pool's size. One is enough: callers wait their turn.
    """

    def __init__(self, url: sa.URL, pool: PoolSettings) -> None:
        self.url = url
        self.settings = pool
        self.renewals = 0
        """How often connections were given up because they lead to the wrong server."""
        self._renewed_at = float("-inf")
        self.engine = open_engine(url, pool)
        self._reading = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        sa.event.listen(self.engine, "handle_error", self._judge)
        self._closed = threading.Event()
        self._trimmer = threading.Thread(target=self._trim, name="sql-trim", daemon=True)
        self._trimmer.start()

    @property
    def pool(self) -> FairPool:
        return cast("FairPool", self.engine.pool)

    @contextlib.contextmanager
    def taken(self, abandoned: Callable[[], bool], *, writing: bool) -> Iterator[sa.Connection]:
        """A connection. `abandoned` tells whether the caller stopped waiting for it."""
        engine = self.engine if writing or self.settings.transaction_pooling else self._reading
        with self._connect(engine, abandoned) as connection:
            yield connection

    def prepare(self, connection: sa.Connection) -> None:
        """Begin a transaction through a pooler: set its time-outs, and refuse a standby.

        A direct connection has both from its start.
        """
        if self.settings.transaction_pooling:
            # One round trip: libpq sends several statements at once where there are no parameters.
            standby = f"SELECT pg_catalog.pg_is_in_recovery(); {LOCAL_SETTINGS}"
            if connection.exec_driver_sql(standby).scalar_one():
                connection.invalidate()
                raise WrongServerError

    def renew(self) -> None:
        """Replace all connections, because the server behind the address has changed."""
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

    def _judge(self, context: sa.ExceptionContext) -> None:
        """Count a server that takes no changes as lost.

        After a failover a proxy leads new connections to the new primary, and keeps the old ones.
        """
        if getattr(context.original_exception, "sqlstate", None) != READ_ONLY:
            return
        context.is_disconnect = True
        now = time.monotonic()
        # A primary that was made read-only goes on to serve reads: do not reconnect all the time.
        context.invalidate_pool_on_disconnect = now > self._renewed_at + _RENEW_PAUSE
        if context.invalidate_pool_on_disconnect:
            self._renewed_at = now
            self.renewals += 1

    def _trim(self) -> None:
        while not self._closed.wait(_TRIM_EVERY):
            self.pool.trim(IDLE)
