"""Copy of all rows of one database into an empty one, in one transaction of the target."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from msgspec import Struct

from registry import clock
from registry.errors import ConflictError, DatabaseUnavailableError
from registry.metadata import tables
from registry.metadata.engine import sqlite, write_freeze
from registry.metadata.engine.connections import open_plain_engine
from registry.metadata.engine.database import parse_url
from registry.metadata.engine.transaction import Transaction
from registry.metadata.engine.write_freeze import MoveState
from registry.metadata.engine.writer_lock import WriterLock
from storage.digest import Digest

ROWS = 500
"""Rows per batch of a table without binary columns."""

HEAVY = 16
"""Rows per batch of a table with binary columns, where a row may have a manifest of 4 MiB."""

_TOTAL = 1 << 128

_PATIENT = "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"
"""Not set as startup options, because poolers refuse those."""

Row = tuple[Any, ...]

Rows = Callable[[sa.Connection, sa.Table], Iterator[list[Row]]]
"""Returns the batches of rows to write to a table. `iter_rows` returns all rows of the source."""


class TableChecksum(Struct):
    """The number of rows and an order-independent checksum."""

    rows: int = 0
    total: int = 0

    def add(self, row: Row) -> None:
        self.rows += 1
        digest = hashlib.blake2b(repr(row).encode(), digest_size=16).digest()
        self.total = (self.total + int.from_bytes(digest)) % _TOTAL


def list_tables() -> list[sa.Table]:
    """Return the tables to copy, parents before their children.

    These are all tables except those that describe the database itself.
    """
    own = {tables.schema_version.name, tables.write_freeze.name}
    return [table for table in tables.metadata.sorted_tables if table.name not in own]


def copy(
    source: str,
    target: str,
    *,
    token: str,
    private_keys: Mapping[str, bytes] | None,
    tell: Callable[[str, int], None],
) -> dict[str, int]:
    """Copy all rows of the source into the target and return the number of rows in each table.

    Blocking. The source must not change during the copy. `private_keys` replaces the rows of that
    table. The target is not usable as a registry until `confirm`. See `copy_tables` for errors.
    """

    def rows(reading: sa.Connection, table: sa.Table) -> Iterator[list[Row]]:
        if table is tables.private_keys and private_keys is not None:
            return iter([list(private_keys.items())] if private_keys else [])
        return iter_rows(reading, table)

    place = parse_url(source).render_as_string()
    return copy_tables(
        source, target, lambda tx: write_freeze.mark_filling(tx, token, place), rows, tell
    )


def copy_tables(
    source: str,
    target: str,
    mark: Callable[[Transaction], None],
    rows: Rows,
    tell: Callable[[str, int], None],
) -> dict[str, int]:
    """Fill the target, verify it, and return the number of rows in each table. Blocking.

    `mark` records in the target what fills it. After the copy, all rows are read back and compared,
    and manifests are hashed. `tell` receives the name of a table and the number of its rows written
    so far.

    If the copy fails, the target is unchanged. Raises ConflictError if the target is not empty or
    does not read back as written, and DatabaseUnavailableError if a database fails.
    """
    try:
        with reading(source) as connection, _writing(target) as tx:
            _require_empty(tx)
            mark(tx)
            return fill(connection, tx, rows, tell)
    except sa.exc.SQLAlchemyError as error:
        raise DatabaseUnavailableError(
            f"the copy failed, and nothing was changed: {cause_of(error)}"
        ) from error


def cause_of(error: sa.exc.SQLAlchemyError) -> str:
    """Return the first line of the database's message, because later lines may show rows."""
    return str(getattr(error, "orig", None) or error).partition("\n")[0]


def confirm(tx: Transaction, token: str) -> None:
    """Mark the target as the registry's database."""
    row = tables.write_freeze.c
    tx.execute(sa.delete(tables.write_freeze).where(row.token == token))


@contextlib.contextmanager
def reading(url: str) -> Iterator[sa.Connection]:
    """Yield a connection with one snapshot of the source, which does not block writers."""
    place = parse_url(url)
    if place.get_backend_name() == "sqlite":
        engine = sqlite.open_engine(_path(place), writer=False)
    else:
        # Without a server's timeouts, because a large table may take long.
        engine = open_plain_engine(place, hide_parameters=True).execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
    try:
        with engine.connect() as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql(_PATIENT)
            yield connection
    finally:
        engine.dispose()


@contextlib.contextmanager
def _writing(url: str) -> Iterator[Transaction]:
    """Yield one transaction of the target, with all other writers locked out."""
    place = parse_url(url)
    with contextlib.ExitStack() as stack:
        if place.get_backend_name() == "sqlite":
            lock = WriterLock(_path(place))
            stack.callback(lock.close)
            stack.enter_context(lock.held())
            engine = sqlite.open_engine(_path(place), writer=True)
        else:
            engine = open_plain_engine(place, hide_parameters=True)
        stack.callback(engine.dispose)
        connection = stack.enter_context(engine.begin())
        if connection.dialect.name == "postgresql":
            names = ", ".join(f'"{table.name}"' for table in list_tables())
            connection.exec_driver_sql("SET LOCAL lock_timeout = '5s'")
            connection.exec_driver_sql(f"LOCK TABLE {names} IN SHARE ROW EXCLUSIVE MODE")
        yield Transaction(connection, "", clock.now_us())


def _path(url: sa.URL) -> Path:
    return Path(url.database or "")


def _require_empty(tx: Transaction) -> None:
    """Clear the rows of an earlier unfinished copy and the counters of a new schema.

    Raises ConflictError if the target has other rows.
    """
    before = write_freeze.find(tx)
    ours = before is not None and before.state is MoveState.FILLING
    single = {tables.change_feed_revision.name, tables.policy_revision.name, tables.gc_state.name}
    for table in reversed(list_tables()):
        if not ours and table.name not in single:
            one = sa.select(sa.literal(1)).select_from(table).limit(1)
            if tx.execute(one).first() is not None:
                raise ConflictError(
                    f"the target database is not empty: its table {table.name} has rows. "
                    "Choose an empty database or, for an embedded one, another data directory "
                    "(--data DIR). To replace the existing one, first move its data directory or "
                    "database away"
                )
        tx.execute(sa.delete(table))
    tx.execute(sa.delete(tables.write_freeze))


def fill(
    source: sa.Connection, tx: Transaction, rows: Rows, tell: Callable[[str, int], None]
) -> dict[str, int]:
    """Write the rows of all tables, which are empty, and verify them as `copy_tables` does."""
    counts = {}
    for table in list_tables():
        written = TableChecksum()
        names = [column.name for column in table.columns]
        for some in rows(source, table):
            tx.connection.execute(
                sa.insert(table), [dict(zip(names, row, strict=True)) for row in some]
            )
            for row in some:
                written.add(row)
            tell(table.name, written.rows)
        _require_same(table, written, tx.connection)
        counts[table.name] = written.rows
    _require_digests(tx.connection)
    _set_counters(source, tx.connection)
    return counts


def iter_rows(connection: sa.Connection, table: sa.Table) -> Iterator[list[Row]]:
    """Yield all rows of a table in batches."""
    heavy = any(isinstance(column.type, sa.LargeBinary) for column in table.columns)
    size = HEAVY if heavy else ROWS
    options = {"stream_results": True, "max_row_buffer": size}
    with connection.execute(sa.select(table), execution_options=options) as found:
        for some in found.partitions(size):
            yield [tuple(row) for row in some]


def _require_same(table: sa.Table, written: TableChecksum, target: sa.Connection) -> None:
    there = TableChecksum()
    for some in iter_rows(target, table):
        for row in some:
            there.add(row)
    if there != written:
        raise ConflictError(
            f"the table {table.name} does not match what was written to it: {written.rows} rows "
            f"were written, {there.rows} were read back"
        )


def _require_digests(target: sa.Connection) -> None:
    """Raise ConflictError unless the bytes of every manifest have its digest."""
    query = sa.select(tables.manifests.c.digest, tables.manifest_bytes.c.bytes).join(
        tables.manifest_bytes, tables.manifest_bytes.c.manifest_id == tables.manifests.c.id
    )
    options = {"stream_results": True, "max_row_buffer": HEAVY}
    with target.execute(query, execution_options=options) as found:
        for digest, raw in found:
            if Digest.of(raw, digest.algorithm) != digest:
                raise ConflictError(f"the bytes of the manifest {digest} do not match its digest")


def _set_counters(source: sa.Connection, target: sa.Connection) -> None:
    """Set the ID counters of the target to those of the source, so that no used ID is reused."""
    for table in list_tables():
        column = table.autoincrement_column
        if column is None:
            continue
        most = source.execute(sa.select(sa.func.max(column))).scalar_one() or 0
        last = max(most, _read_counter(source, table, column))
        if target.dialect.name == "postgresql":
            if last and (sequence := _find_sequence(target, table, column)):
                target.execute(sa.select(sa.func.setval(sequence, last)))
        elif table.dialect_options["sqlite"]["autoincrement"]:
            counters = sa.table("sqlite_sequence", sa.column("name"), sa.column("seq"))
            target.execute(sa.delete(counters).where(counters.c.name == table.name))
            target.execute(sa.insert(counters).values(name=table.name, seq=last))


def _read_counter(source: sa.Connection, table: sa.Table, column: sa.Column[Any]) -> int:
    """Return the last ID given to a row of the table, as recorded by the database."""
    if source.dialect.name == "postgresql":
        sequence = _find_sequence(source, table, column)
        if sequence is None:
            return 0
        query = f"SELECT last_value, is_called FROM {sequence}"  # noqa: S608 - the name comes from the database
        last, called = source.exec_driver_sql(query).one()
        return int(last) if called else 0
    counters = sa.table("sqlite_sequence", sa.column("name"), sa.column("seq"))
    known = sa.select(counters.c.seq).where(counters.c.name == table.name)
    return int(source.execute(known).scalar_one_or_none() or 0)


def _find_sequence(
    connection: sa.Connection, table: sa.Table, column: sa.Column[Any]
) -> str | None:
    found = sa.func.pg_get_serial_sequence(f'"{table.name}"', column.name)
    name: str | None = connection.execute(sa.select(found)).scalar_one()
    return name
