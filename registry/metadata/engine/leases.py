"""Leases, which record the process that runs a job. The lease of a dead process expires."""

import sqlalchemy as sa

from registry.metadata.engine.statements import insert_into
from registry.metadata.engine.transaction import Transaction
from registry.metadata.tables import leases

_l = leases.c

BACKUP = "backup/"
"""Prefix of the leases of running backups, which block deletions from the stores."""

FILL = "fill/"
"""Prefix of the leases of blobs that are being fetched from an upstream."""


def claim(tx: Transaction, name: str, holder: str, seconds: float) -> bool:
    """Take or extend the lease for `seconds`. Returns False if another holder has it."""
    now = tx.read_clock()
    insert = insert_into(leases).values(
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
    """Extend the lease to `seconds` from now. Returns False if it has expired."""
    now = tx.read_clock()
    held = sa.and_(_l.name == name, _l.holder == holder, _l.expires_at >= now)
    until = now + int(seconds * 1_000_000)
    return tx.execute(sa.update(leases).where(held).values(expires_at=until)).rowcount > 0


def replace_holder(tx: Transaction, name: str, holder: str, new: str) -> bool:
    """Replace the text that names the holder of a lease. Returns False if another holder has it."""
    held = sa.and_(_l.name == name, _l.holder == holder)
    return tx.execute(sa.update(leases).where(held).values(holder=new)).rowcount > 0


def find_holder(tx: Transaction, name: str) -> str | None:
    """Return the holder of a lease that has not expired."""
    query = sa.select(_l.holder).where(_l.name == name, _l.expires_at >= tx.read_clock())
    return tx.execute(query).scalar_one_or_none()


def is_backed_up(tx: Transaction) -> sa.Exists:
    """Return the condition that a backup is running."""
    return sa.exists().where(_is_below(BACKUP), _l.expires_at >= tx.read_clock())


def delete_expired(tx: Transaction, prefix: str) -> None:
    """Delete the leases of killed processes whose names start with `prefix` and are used once."""
    tx.execute(sa.delete(leases).where(_is_below(prefix), _l.expires_at < tx.read_clock()))


def _is_below(prefix: str) -> sa.ColumnElement[bool]:
    # A range, so that the index is used. Its end is the character after the last one of the prefix.
    end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    return sa.and_(_l.name >= prefix, _l.name < end)


def is_any_backup_running(tx: Transaction) -> bool:
    return bool(tx.execute(sa.select(is_backed_up(tx))).scalar_one())


def release(tx: Transaction, name: str, holder: str) -> None:
    tx.execute(sa.delete(leases).where(_l.name == name, _l.holder == holder))
