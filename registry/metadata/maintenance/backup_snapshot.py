"""Backup snapshots: all rows in a file that is a SQLite database of a registry.

The format is the same for every source database (`docs/adr/0011-one-format-of-backups.md`). All
functions are blocking.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa

from registry import clock
from registry.errors import DatabaseUnavailableError, SchemaError
from registry.metadata import tables
from registry.metadata.content.blobs import BlobRow, BlobState
from registry.metadata.engine import migrate, write_freeze
from registry.metadata.engine.transaction import CHUNK, Transaction
from registry.metadata.engine.write_freeze import MoveState
from registry.metadata.maintenance import database_copy
from registry.metadata.maintenance.database_copy import Row
from registry.metadata.tables import blobs, schema_version
from storage.digest import Digest

_b = blobs.c

LEFT_OUT = {
    # State of the moment, of the store or of running processes.
    tables.uploads.name,
    tables.pending_deletions.name,
    tables.leases.name,
    tables.sign_in_failures.name,
    # Private keys are included only on request.
    tables.private_keys.name,
}

PLACE = "a backup"

Tell = Callable[[str, int], None]


def take(source: str, path: Path, tell: Tell) -> dict[str, int]:
    """Write the rows of the database `source` into the new file `path`, as of one snapshot.

    Returns the number of rows in each table. Writers are not blocked. `tell` is as in
    `database_copy.copy_tables`. Raises DatabaseUnavailableError, SchemaError if this version does
    not know the whole schema, and ConflictError if rows are invalid.
    """

    def rows(reading: sa.Connection, table: sa.Table) -> Iterator[list[Row]]:
        return iter(()) if table.name in LEFT_OUT else database_copy.iter_rows(reading, table)

    try:
        migrate.upgrade(_url(path))
        with database_copy.reading(source) as reading, _changing(path) as tx:
            _require_own_schema(reading)
            for table in reversed(database_copy.list_tables()):
                tx.execute(sa.delete(table))  # the counters of a new schema
            return database_copy.fill(reading, tx, rows, tell)
    except sa.exc.SQLAlchemyError as error:
        cause = database_copy.cause_of(error)
        raise DatabaseUnavailableError(
            f"the database could not be read for the backup: {cause}"
        ) from error


def settle(path: Path, missing: Sequence[Digest]) -> None:
    """Record the blobs that are missing from the backup. It has all others."""
    with _changing(path) as tx:
        others = sa.update(blobs).where(_b.state != BlobState.LIVE.value)
        tx.execute(others.values(state=BlobState.LIVE.value))
        for start in range(0, len(missing), CHUNK):
            some = missing[start : start + CHUNK]
            gone = sa.update(blobs).where(_b.digest.in_(some))
            tx.execute(gone.values(state=BlobState.MISSING.value))


def restore(
    path: Path,
    target: str,
    *,
    token: str,
    store: str,
    new_key: Callable[[Digest], str],
    with_keys: bool,
    tell: Tell,
) -> None:
    """Fill the empty database `target` from the snapshot in `path`, and upgrade its schema.

    The blobs belong to `store`, each under a `new_key` that has no bytes yet. `with_keys` includes
    the private keys; without them, their public halves are left out as useless. The target is not
    usable as a registry before `database_copy.confirm` with `token`. Raises the errors of
    `database_copy.copy_tables`.
    """
    names = [column.name for column in blobs.columns]

    def place(row: Row) -> Row:
        found = dict(zip(names, row, strict=True))
        key = new_key(found[_b.digest.name])
        state = BlobState.MISSING.value
        return tuple((found | {"store": store, "key": key, "state": state}).values())

    def rows(reading: sa.Connection, table: sa.Table) -> Iterator[list[Row]]:
        if table is tables.signing_keys and not with_keys:
            return iter(())
        found = database_copy.iter_rows(reading, table)
        return ([place(row) for row in some] for some in found) if table is blobs else found

    migrate.upgrade(_url(path))
    database_copy.copy_tables(
        _url(path),
        target,
        lambda tx: write_freeze.mark_filling(tx, token, PLACE, MoveState.RESTORING),
        rows,
        tell,
    )


class SnapshotFile:
    """A snapshot file of this version or an earlier one, opened without creating other files."""

    def __init__(self, path: Path) -> None:
        url = sa.URL.create(
            "sqlite",
            database=f"file:{quote(str(path))}",
            query={"mode": "ro", "immutable": "1", "uri": "true"},
        )
        self._engine = sa.create_engine(url, poolclass=sa.NullPool)

    def list_page(self, last: Digest | None, n: int, *, whole: bool = True) -> list[BlobRow]:
        """Return at most `n` blobs after the digest `last`, in digest order.

        `whole` selects only blobs whose bytes the backup has.
        """
        query = sa.select(_b.digest, _b.size, _b.store, _b.key, _b.state)
        if whole:
            query = query.where(_b.state == BlobState.LIVE.value)
        if last is not None:
            query = query.where(_b.digest > last)
        with self._engine.connect() as connection:
            found = connection.execute(query.order_by(_b.digest).limit(n))
            return [BlobRow(*row[:4], BlobState(row[4])) for row in found]

    def measure(self, *, whole: bool = True) -> tuple[int, int]:
        """Return the number of blobs and their bytes, selected as in `list_page`."""
        query = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(_b.size), 0))
        if whole:
            query = query.where(_b.state == BlobState.LIVE.value)
        with self._engine.connect() as connection:
            count, size = connection.execute(query).one()
        return int(count), int(size)


def _url(path: Path) -> str:
    return sa.URL.create("sqlite", database=str(path)).render_as_string()


@contextlib.contextmanager
def _changing(path: Path) -> Iterator[Transaction]:
    """Yield one transaction of a file that no other process uses.

    The database stays one file, without a log file that could be left behind.
    """
    engine = sa.create_engine(_url(path), poolclass=sa.NullPool)
    with engine.begin() as connection:
        yield Transaction(connection, "", clock.now_us())


def _require_own_schema(reading: sa.Connection) -> None:
    """Raise SchemaError unless the database's schema is that of this version.

    A newer schema has columns that the snapshot would leave out.
    """
    version = reading.execute(sa.select(schema_version.c.version)).scalar_one()
    if version != migrate.VERSION:
        raise SchemaError(
            f"the database has schema {version}, but this version supports {migrate.VERSION}; "
            "create backups with the newer version"
        )
