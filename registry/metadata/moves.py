"""A database that is being copied to another takes no changes, whoever asks: triggers refuse them.

So every process obeys, of every version, and while nobody copies nothing is paid for it. To make a
trigger, PostgreSQL waits for all who are changing its table, and SQLite has one writer at a time:
once they are there, what is read is what will ever have been.
"""

from dataclasses import dataclass
from enum import StrEnum

import sqlalchemy as sa

from registry.errors import ConflictError
from registry.metadata.tables import metadata, moves
from registry.metadata.transaction import Transaction

_m = moves.c

SQLSTATE = "MR001"
"""What PostgreSQL calls a change that was refused."""

REFUSAL = "moorage: this database takes no changes"

_NOW = {
    "sqlite": "(CAST(strftime('%s', 'now') AS INTEGER) * 1000000)",
    "postgresql": "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
}
"""The database's own clock: it is the one that its triggers know."""

_FUNCTION = f"""
CREATE OR REPLACE FUNCTION moorage_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM moves WHERE until IS NULL OR until > {_NOW["postgresql"]}) THEN
        RAISE EXCEPTION '{REFUSAL}' USING ERRCODE = '{SQLSTATE}';
    END IF;
    RETURN NULL;
END $$
"""  # noqa: S608 - only of what stands above


_CLAUSE = f"""
WHEN EXISTS (SELECT 1 FROM moves WHERE until IS NULL OR until > {_NOW["sqlite"]})
BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END
"""  # noqa: S608 - as above


_CHANGES = ("INSERT", "UPDATE", "DELETE")


class MoveState(StrEnum):
    """What is going on, or has been."""

    # Read by a copy; until its lease ends, nothing changes.
    PAUSED = "paused"
    # Copied: the other database is the registry's now.
    MOVED = "moved"
    # Filled by a copy that has not come to its end.
    FILLING = "filling"
    # Filled from a backup, whose blobs are not all there yet.
    RESTORING = "restoring"


@dataclass(frozen=True, slots=True)
class MoveRow:
    """`place`: the other database, without its password. `over`: the lease of a pause has ended."""

    state: MoveState
    token: str
    place: str
    over: bool


def find(tx: Transaction) -> MoveRow | None:
    over = sa.func.coalesce(_m.until <= _now(tx), sa.false())
    row = tx.execute(sa.select(_m.state, _m.token, _m.place, over)).one_or_none()
    return MoveRow(MoveState(row[0]), row[1], row[2], bool(row[3])) if row else None


def pause(tx: Transaction, token: str, place: str, seconds: float) -> None:
    """Refuse all changes from here on for so long; ConflictError if it is not ours to do."""
    before = find(tx)
    if before is not None and not before.over:
        what = "is being copied" if before.state is MoveState.PAUSED else "was moved"
        raise ConflictError(f"the database {what} to {before.place}; see moorage db copy --release")
    release(tx)
    until = _now(tx) + int(seconds * 1_000_000)
    row = {"id": 1, "state": MoveState.PAUSED.value, "token": token, "place": place}
    tx.execute(sa.insert(moves).values(**row, until=until))
    names = _list_names()
    if tx.connection.dialect.name == "postgresql":
        # All at once, so that it either gets them or waits without any.
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
    """Pause for so long from now; False if the pause has ended meanwhile."""
    until = _now(tx) + int(seconds * 1_000_000)
    return _update(tx, token, until=until)


def finish(tx: Transaction, token: str) -> bool:
    """Refuse changes for good; False as `extend`."""
    return _update(tx, token, until=None, state=MoveState.MOVED.value)


def fill(tx: Transaction, token: str, place: str, state: MoveState = MoveState.FILLING) -> None:
    """Say that what is here is not a registry's yet."""
    row = {"id": 1, "state": state.value, "token": token, "place": place}
    tx.execute(sa.insert(moves).values(**row, until=None))


def release(tx: Transaction) -> None:
    """Take changes again. Triggers stay on PostgreSQL and refuse nothing, until `remove_guard`."""
    tx.execute(sa.delete(moves))
    if tx.connection.dialect.name == "sqlite":
        for name in _list_names():
            for change in _CHANGES:
                tx.connection.exec_driver_sql(f'DROP TRIGGER IF EXISTS "refuse_{change}_{name}"')


def list_guarded(tx: Transaction) -> list[str]:
    """The tables of PostgreSQL that have a trigger."""
    if tx.connection.dialect.name == "sqlite":
        return []
    query = "SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname = 'moorage_refuse'"
    return sorted(name.strip('"') for (name,) in tx.connection.exec_driver_sql(query))


def remove_guard(tx: Transaction, table: str) -> None:
    """Drop a trigger that is of no use any more. A transaction for each: it keeps readers out, and
    with two tables could deadlock with one of them.
    """
    if find(tx) is None:
        tx.connection.exec_driver_sql(f'DROP TRIGGER IF EXISTS moorage_refuse ON "{table}"')


def _update(tx: Transaction, token: str, **values: object) -> bool:
    # Had it ended before, something might have been changed that was not copied.
    mine = sa.and_(_m.token == token, _m.state == MoveState.PAUSED.value, _m.until > _now(tx))
    return tx.execute(sa.update(moves).where(mine).values(**values)).rowcount > 0


def _now(tx: Transaction) -> sa.ColumnElement[int]:
    return sa.literal_column(_NOW[tx.connection.dialect.name], sa.BigInteger)


def _list_names() -> list[str]:
    return sorted(name for name in metadata.tables if name != moves.name)
