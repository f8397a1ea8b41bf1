"""Keys whose bytes are to be removed: nothing in a store is ever without an owner (design D2)."""

import sqlalchemy as sa

from registry.metadata.tables import doomed
from registry.metadata.transaction import Transaction

_d = doomed.c


def insert(tx: Transaction, store: str, key: str, reason: str, *, not_before: int = 0) -> None:
    """Doom a key. `not_before`: microseconds, when its bytes may go at the earliest; never before
    now, so that `list_due` knows for how long a key has been doomed.
    """
    statement = tx.insert(doomed).values(
        store=store, key=key, reason=reason, not_before=max(not_before, tx.now)
    )
    tx.execute(
        statement.on_conflict_do_update(
            index_elements=[_d.store, _d.key], set_={"not_before": statement.excluded.not_before}
        )
    )


def list_due(tx: Transaction, store: str, n: int, *, held: float = 0.0) -> list[str]:
    """At most `n` keys of the store whose time has come, and `held` seconds have gone since."""
    until = tx.now - int(held * 1_000_000)
    query = (
        sa.select(_d.key)
        .where(_d.store == store, _d.not_before <= until)
        .order_by(_d.not_before, _d.key)
        .limit(n)
    )
    return list(tx.execute(query).scalars())


def list_beginning(tx: Transaction, store: str, start: str, n: int) -> list[tuple[str, int]]:
    """At most `n` keys of the store that begin with `start`, each with its `not_before`."""
    query = sa.select(_d.key, _d.not_before).where(
        _d.store == store, _d.key >= start, _d.key < f"{start}~"
    )
    return [(row.key, row.not_before) for row in tx.execute(query.order_by(_d.key).limit(n))]


def count_in(tx: Transaction, store: str) -> int:
    """How many keys of the store are doomed."""
    query = sa.select(sa.func.count()).select_from(doomed).where(_d.store == store)
    return int(tx.execute(query).scalar_one())


def delete(tx: Transaction, store: str, keys: list[str]) -> None:
    """Forget keys whose bytes are gone."""
    tx.execute(sa.delete(doomed).where(_d.store == store, _d.key.in_(keys)))
