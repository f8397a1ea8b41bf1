"""Leases: which process runs a job. One that dies lets its lease run out."""

import sqlalchemy as sa

from registry.metadata.tables import leases
from registry.metadata.transaction import Transaction

_l = leases.c


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


def release(tx: Transaction, name: str, holder: str) -> None:
    tx.execute(sa.delete(leases).where(_l.name == name, _l.holder == holder))


def is_any_held(tx: Transaction, prefix: str) -> bool:
    """Whether anybody holds a lease whose name begins so."""
    query = sa.select(_l.name).where(
        _l.name.startswith(prefix, autoescape=True), _l.expires_at >= tx.read_clock()
    )
    return tx.execute(query.limit(1)).first() is not None
