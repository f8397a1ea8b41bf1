"""Leases: which process runs a job. One that dies lets its lease run out."""

import sqlalchemy as sa

from registry.metadata.tables import leases
from registry.metadata.transaction import Transaction

_l = leases.c

BACKUP = "backup/"
"""How the leases of backups begin that run. Nothing is removed that they may be about to read."""


def claim(tx: Transaction, name: str, holder: str, seconds: float) -> bool:
    """Take or extend the lease for `seconds`, unless another holds it; whether it was taken."""
    now = tx.read_clock()
    insert = tx.insert(leases).values(
        name=name, holder=holder, expires_at=now + int(seconds * 1_000_000)
    )
    statement = insert.on_conflict_do_update(
        index_elements=[_l.name],
        set_={"holder": insert.excluded.holder, "expires_at": insert.excluded.expires_at},
        where=sa.or_(_l.holder == holder, _l.expires_at < now),
    )
    # RETURNING, because psycopg does not count the rows of an insert.
    return tx.execute(statement.returning(_l.name)).first() is not None


def extend(tx: Transaction, name: str, holder: str, seconds: float) -> bool:
    """Hold the lease for `seconds` from now; False if it has ended meanwhile."""
    now = tx.read_clock()
    held = sa.and_(_l.name == name, _l.holder == holder, _l.expires_at >= now)
    until = now + int(seconds * 1_000_000)
    return tx.execute(sa.update(leases).where(held).values(expires_at=until)).rowcount > 0


def is_backed_up(tx: Transaction) -> sa.Exists:
    """Whether a backup runs, as a condition of a query."""
    return sa.exists().where(_is_of_backup(), _l.expires_at >= tx.read_clock())


def forget_backups(tx: Transaction) -> None:
    """Remove what backups left that were killed: each has a name of its own."""
    tx.execute(sa.delete(leases).where(_is_of_backup(), _l.expires_at < tx.read_clock()))


def _is_of_backup() -> sa.ColumnElement[bool]:
    # A range, for which there is an index: the next character follows the last of BACKUP.
    end = BACKUP[:-1] + chr(ord(BACKUP[-1]) + 1)
    return sa.and_(_l.name >= BACKUP, _l.name < end)


def is_any_backup_running(tx: Transaction) -> bool:
    return bool(tx.execute(sa.select(is_backed_up(tx))).scalar_one())


def release(tx: Transaction, name: str, holder: str) -> None:
    tx.execute(sa.delete(leases).where(_l.name == name, _l.holder == holder))
