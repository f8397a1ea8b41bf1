"""Rows of sync schedules."""

from dataclasses import dataclass

import sqlalchemy as sa

from registry.metadata.engine.transaction import Transaction
from registry.metadata.tables import sync_schedules

_s = sync_schedules.c


@dataclass(frozen=True, slots=True)
class SyncScheduleRow:
    """A schedule. `options` is JSON. Times are in microseconds.

    `next_at` is by the database's clock.
    """

    id: int
    mirror: str
    options: str
    every: int
    next_at: int
    created_by: str
    created_at: int


_COLUMNS = (_s.id, _s.mirror, _s.options, _s.every, _s.next_at, _s.created_by, _s.created_at)


def insert(tx: Transaction, mirror: str, options: str, every: int) -> SyncScheduleRow:
    """Add a schedule, which is due at once."""
    values = {
        "mirror": mirror,
        "options": options,
        "every": every,
        "next_at": tx.read_clock(),
        "created_by": tx.actor,
        "created_at": tx.now,
    }
    added = tx.execute(sa.insert(sync_schedules).values(**values).returning(*_COLUMNS)).one()
    return SyncScheduleRow(*added)


def delete(tx: Transaction, mirror: str, number: int) -> bool:
    """Delete a schedule. Returns False if there is none."""
    statement = sa.delete(sync_schedules).where(_s.id == number, _s.mirror == mirror)
    return tx.execute(statement).rowcount > 0


def delete_of(tx: Transaction, mirror: str) -> None:
    """Delete all schedules of a mirror."""
    tx.execute(sa.delete(sync_schedules).where(_s.mirror == mirror))


def list_of(tx: Transaction, mirror: str) -> list[SyncScheduleRow]:
    """Return the schedules of a mirror, in the order in which they were added."""
    rows = tx.execute(sa.select(*_COLUMNS).where(_s.mirror == mirror))
    return sorted((SyncScheduleRow(*row) for row in rows), key=lambda row: row.id)


def _is_due(tx: Transaction) -> sa.ColumnElement[bool]:
    # A subquery, because PostgreSQL would read the clock for each row.
    return _s.next_at <= sa.select(tx.read_clock()).scalar_subquery()


def is_any_due(tx: Transaction) -> bool:
    query = sa.select(_s.id).where(_is_due(tx)).limit(1)
    return tx.execute(query).first() is not None


def advance_due(tx: Transaction) -> list[SyncScheduleRow]:
    """Return the schedules that are due, which are due again after their interval from now."""
    values = {"next_at": tx.read_clock() + _s.every}
    statement = sa.update(sync_schedules).where(_is_due(tx)).values(**values)
    return [SyncScheduleRow(*row) for row in tx.execute(statement.returning(*_COLUMNS))]
