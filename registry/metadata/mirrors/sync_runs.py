"""Rows of sync runs, which wait, run, or have ended."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from registry.metadata.engine.transaction import Transaction
from registry.metadata.tables import leases, sync_runs

_r = sync_runs.c

LEASE = "mirror-sync/"
"""Prefix of the leases of running syncs, which name the mirror."""

_KEPT = 50


class SyncState(StrEnum):
    """The state of a run."""

    WAITING = "waiting"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class SyncRunRow:
    """A run. `options`, `progress` and `report` are JSON. Times are in microseconds."""

    id: int
    mirror: str
    schedule_id: int | None
    options: str
    state: SyncState
    progress: str
    report: str
    created_by: str
    created_at: int
    started_at: int | None
    ended_at: int | None


_COLUMNS = (
    _r.id,
    _r.mirror,
    _r.schedule_id,
    _r.options,
    _r.state,
    _r.progress,
    _r.report,
    _r.created_by,
    _r.created_at,
    _r.started_at,
    _r.ended_at,
)


def _read(row: sa.Row[*tuple[Any, ...]]) -> SyncRunRow:
    values = list(row)
    values[4] = SyncState(values[4])
    return SyncRunRow(*values)


def insert(tx: Transaction, mirror: str, schedule_id: int | None, options: str) -> SyncRunRow:
    """Add a waiting run, and delete old ones of the mirror."""
    values = {
        "mirror": mirror,
        "schedule_id": schedule_id,
        "options": options,
        "state": SyncState.WAITING.value,
        "progress": "{}",
        "report": "{}",
        "created_by": tx.actor,
        "created_at": tx.now,
    }
    added = _read(tx.execute(sa.insert(sync_runs).values(**values).returning(*_COLUMNS)).one())
    of_mirror = _r.mirror == mirror
    kept = sa.select(_r.id).where(of_mirror).order_by(_r.id.desc()).limit(_KEPT)
    tx.execute(sa.delete(sync_runs).where(of_mirror, _r.ended_at.is_not(None), _r.id.not_in(kept)))
    return added


def find(tx: Transaction, mirror: str, number: int) -> SyncRunRow | None:
    query = sa.select(*_COLUMNS).where(_r.id == number, _r.mirror == mirror)
    row = tx.execute(query).one_or_none()
    return _read(row) if row else None


def list_of(tx: Transaction, mirror: str, last: int | None, n: int) -> list[SyncRunRow]:
    """Return at most `n` runs of a mirror before the run `last`, the latest first."""
    query = sa.select(*_COLUMNS).where(_r.mirror == mirror).order_by(_r.id.desc()).limit(n)
    if last is not None:
        query = query.where(_r.id < last)
    return [_read(row) for row in tx.execute(query)]


def find_latest(tx: Transaction, mirror: str, schedule_id: int) -> SyncRunRow | None:
    """Return the latest run of a schedule."""
    query = (
        sa.select(*_COLUMNS)
        .where(_r.mirror == mirror, _r.schedule_id == schedule_id)
        .order_by(_r.id.desc())
        .limit(1)
    )
    row = tx.execute(query).one_or_none()
    return _read(row) if row else None


def is_open(tx: Transaction, schedule_id: int) -> bool:
    """Return whether a run of a schedule has not ended."""
    query = sa.select(_r.id).where(_r.ended_at.is_(None), _r.schedule_id == schedule_id)
    return tx.execute(query.limit(1)).first() is not None


def list_startable(tx: Transaction) -> list[SyncRunRow]:
    """Return the runs that have not ended and whose mirrors no process synchronizes."""
    _l = leases.c
    is_held = sa.exists().where(_l.name == LEASE + _r.mirror, _l.expires_at >= tx.read_clock())
    query = sa.select(*_COLUMNS).where(_r.ended_at.is_(None), ~is_held).limit(100)
    # Sorted here, so that the index of open runs is used.
    return sorted(map(_read, tx.execute(query)), key=lambda row: row.id)


def start(tx: Transaction, number: int) -> SyncRunRow | None:
    """Start a run, or continue that of a dead process. Returns None if it has ended."""
    started = {"started_at": sa.func.coalesce(_r.started_at, tx.now)}
    state = sa.case((_r.state == SyncState.WAITING.value, SyncState.RUNNING.value), else_=_r.state)
    statement = (
        sa.update(sync_runs)
        .where(_r.id == number, _r.ended_at.is_(None))
        .values(**started, state=state)
        .returning(*_COLUMNS)
    )
    row = tx.execute(statement).one_or_none()
    return _read(row) if row else None


def note(tx: Transaction, number: int, progress: str, report: str | None) -> SyncState | None:
    """Record the progress, and the report if it is given. Returns the state of the open run."""
    values = {"progress": progress} | ({} if report is None else {"report": report})
    statement = sa.update(sync_runs).where(_r.id == number, _r.ended_at.is_(None))
    state = tx.execute(statement.values(**values).returning(_r.state)).scalar_one_or_none()
    return None if state is None else SyncState(state)


def end(tx: Transaction, number: int, state: SyncState, progress: str, report: str) -> None:
    """End a run."""
    values = {"state": state.value, "progress": progress, "report": report, "ended_at": tx.now}
    tx.execute(sa.update(sync_runs).where(_r.id == number).values(**values))


def cancel(tx: Transaction, mirror: str, number: int) -> bool:
    """Cancel a run, at once if it is waiting. Returns False if it has ended."""
    is_waiting = _r.state == SyncState.WAITING.value
    state = sa.case((is_waiting, SyncState.CANCELLED.value), else_=SyncState.CANCELLING.value)
    ended = sa.case((is_waiting, sa.literal(tx.now)), else_=_r.ended_at)
    statement = (
        sa.update(sync_runs)
        .where(_r.id == number, _r.mirror == mirror, _r.ended_at.is_(None))
        .values(state=state, ended_at=ended)
    )
    return tx.execute(statement).rowcount > 0


def delete_of(tx: Transaction, mirror: str) -> None:
    """Delete all runs of a mirror. A running one ends when it notes its progress."""
    tx.execute(sa.delete(sync_runs).where(_r.mirror == mirror))
