"""Write freeze of a database during a copy to another one, enforced by triggers.

Triggers bind every process of every version, and cost nothing while no copy runs. To create a
trigger, PostgreSQL waits for all transactions that change its table, and SQLite has one writer at a
time. Once the triggers exist, no further change can be committed.
"""

from enum import StrEnum

import sqlalchemy as sa
from msgspec import Struct

from registry.errors import ConflictError
from registry.metadata.engine.transaction import Transaction
from registry.metadata.tables import metadata, write_freeze

_m = write_freeze.c

SQLSTATE = "MR001"
"""SQLSTATE of a refused change on PostgreSQL."""

REFUSAL = "moorage: this database is read-only"

_NOW = {
    "sqlite": "(CAST(strftime('%s', 'now') AS INTEGER) * 1000000)",
    "postgresql": "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
}
"""The database's own clock, which is the one that triggers can read."""

_FUNCTION = f"""
CREATE OR REPLACE FUNCTION moorage_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT 1 FROM write_freeze WHERE expires_at IS NULL OR expires_at > {_NOW["postgresql"]}
    ) THEN
        RAISE EXCEPTION '{REFUSAL}' USING ERRCODE = '{SQLSTATE}';
    END IF;
    RETURN NULL;
END $$
"""  # noqa: S608 - built from constants


_CLAUSE = f"""
WHEN EXISTS (SELECT 1 FROM write_freeze WHERE expires_at IS NULL OR expires_at > {_NOW["sqlite"]})
BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END
"""  # noqa: S608 - built from constants


_CHANGES = ("INSERT", "UPDATE", "DELETE")


class MoveState(StrEnum):
    """State of a database copy."""

    # Being copied. Nothing changes until the lease expires.
    PAUSED = "paused"
    # Copied. The other database is the registry's now.
    MOVED = "moved"
    # Being filled by a copy that has not finished.
    FILLING = "filling"
    # Being filled from a backup whose blobs are not all present yet.
    RESTORING = "restoring"


class MoveRow(Struct, frozen=True):
    """The row of a copy or a restore.

    `peer` is the other database, without its password. `is_expired` means that the lease of the
    freeze has expired.
    """

    state: MoveState
    token: str
    peer: str
    is_expired: bool


def find(tx: Transaction) -> MoveRow | None:
    over = sa.func.coalesce(_m.expires_at <= _now(tx), sa.false())
    row = tx.execute(sa.select(_m.state, _m.token, _m.peer, over)).one_or_none()
    return MoveRow(MoveState(row[0]), row[1], row[2], bool(row[3])) if row else None


def freeze(tx: Transaction, token: str, place: str, seconds: float) -> None:
    """Refuse all changes for `seconds`.

    Raises ConflictError if another copy is in progress, or if the database was moved.
    """
    before = find(tx)
    if before is not None and not before.is_expired:
        what = "is being copied" if before.state is MoveState.PAUSED else "was moved"
        raise ConflictError(
            f"the database {what} to {before.peer}; to make it writable again, run "
            "moorage db copy --release"
        )
    release(tx)
    until = _now(tx) + int(seconds * 1_000_000)
    row = {"id": 1, "state": MoveState.PAUSED.value, "token": token, "peer": place}
    tx.execute(sa.insert(write_freeze).values(**row, expires_at=until))
    names = _list_names()
    if tx.connection.dialect.name == "postgresql":
        # All in one statement, so that it gets either all locks or none.
        tables = ", ".join(f'"{name}"' for name in names)
        tx.connection.exec_driver_sql(f"LOCK TABLE {tables} IN SHARE ROW EXCLUSIVE MODE")
        tx.connection.exec_driver_sql(_FUNCTION)
        for name in sorted(set(names) - set(list_guarded(tx))):
            tx.connection.exec_driver_sql(
                f'CREATE TRIGGER moorage_refuse BEFORE INSERT OR UPDATE OR DELETE ON "{name}" '
                "FOR EACH STATEMENT EXECUTE FUNCTION moorage_refuse()"
            )
        return
    for name in names:
        for change in _CHANGES:
            head = f'CREATE TRIGGER "refuse_{change}_{name}" BEFORE {change} ON "{name}"'
            tx.connection.exec_driver_sql(f"{head} {_CLAUSE}")


def extend(tx: Transaction, token: str, seconds: float) -> bool:
    """Extend the freeze to `seconds` from now. Returns False if it has expired."""
    until = _now(tx) + int(seconds * 1_000_000)
    return _update(tx, token, expires_at=until)


def mark_moved(tx: Transaction, token: str) -> bool:
    """Refuse changes permanently. Returns False if the freeze has expired."""
    return _update(tx, token, expires_at=None, state=MoveState.MOVED.value)


def mark_filling(
    tx: Transaction, token: str, place: str, state: MoveState = MoveState.FILLING
) -> None:
    """Mark the database as unfinished, so that no registry uses it."""
    row = {"id": 1, "state": state.value, "token": token, "peer": place}
    tx.execute(sa.insert(write_freeze).values(**row, expires_at=None))


def release(tx: Transaction) -> None:
    """Allow changes again.

    On PostgreSQL the triggers stay, without effect, until `remove_guard` drops them.
    """
    tx.execute(sa.delete(write_freeze))
    if tx.connection.dialect.name == "sqlite":
        for name in _list_names():
            for change in _CHANGES:
                tx.connection.exec_driver_sql(f'DROP TRIGGER IF EXISTS "refuse_{change}_{name}"')


def list_guarded(tx: Transaction) -> list[str]:
    """Return the tables that have a trigger on PostgreSQL."""
    if tx.connection.dialect.name == "sqlite":
        return []
    query = "SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname = 'moorage_refuse'"
    return sorted(name.strip('"') for (name,) in tx.connection.exec_driver_sql(query))


def remove_guard(tx: Transaction, table: str) -> None:
    """Drop a trigger that is no longer needed.

    Use one transaction for each table: the drop locks out readers, and with two tables it could
    deadlock with a reader.
    """
    if find(tx) is None:
        tx.connection.exec_driver_sql(f'DROP TRIGGER IF EXISTS moorage_refuse ON "{table}"')


def _update(tx: Transaction, token: str, **values: object) -> bool:
    # After the freeze has expired, something may have changed that was not copied.
    mine = sa.and_(_m.token == token, _m.state == MoveState.PAUSED.value, _m.expires_at > _now(tx))
    return tx.execute(sa.update(write_freeze).where(mine).values(**values)).rowcount > 0


def _now(tx: Transaction) -> sa.ColumnElement[int]:
    return sa.literal_column(_NOW[tx.connection.dialect.name], sa.BigInteger)


def _list_names() -> list[str]:
    return sorted(name for name in metadata.tables if name != write_freeze.name)
