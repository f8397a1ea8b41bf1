"""Keys whose bytes are to be removed: nothing in a store is ever without an owner (design D2)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from registry.metadata import leases
from registry.metadata.tables import doomed
from registry.metadata.transaction import Transaction

_d = doomed.c

_AGAIN = "removed, and to be removed once more"


@dataclass(frozen=True, slots=True)
class DueRow:
    """A key whose time has come. `not_before`, in microseconds, differs each time the key is doomed
    or put off, so that what was done about the one says nothing of the other.
    """

    store: str
    key: str
    not_before: int
    again: bool
    """Whether its bytes were removed before, and were to be removed once more."""


def insert(tx: Transaction, store: str, key: str, reason: str, *, not_before: int = 0) -> None:
    """Doom a key. `not_before`: microseconds, when its bytes may go at the earliest; never before
    now, so that `list_due` knows for how long a key has been doomed, nor before what was said of
    the key already.
    """
    insert_all(tx, [(store, key)], reason, not_before=not_before)


def insert_all(
    tx: Transaction, keys: Collection[tuple[str, str]], reason: str, *, not_before: int = 0
) -> None:
    """Doom keys, each of a store; as `insert`."""
    if not keys:
        return
    rest = {"reason": reason, "not_before": max(not_before, tx.now)}
    statement = tx.insert(doomed).values(
        [{"store": store, "key": key, **rest} for store, key in sorted(keys)]
    )
    told = statement.excluded.not_before
    # Nobody was promised anything of a key whose bytes are gone.
    free = sa.and_(_d.reason == _AGAIN, told < _d.not_before)
    later = sa.case((sa.or_(told > _d.not_before, free), told), else_=_d.not_before + 1)
    changed = {"not_before": later, "reason": statement.excluded.reason}
    tx.execute(statement.on_conflict_do_update(index_elements=[_d.store, _d.key], set_=changed))


def list_due(tx: Transaction, store: str, n: int, *, held: float = 0.0) -> list[DueRow]:
    """At most `n` keys of the store whose time has come, and `held` seconds have gone since.
    None while a backup runs: its snapshot may name keys that were doomed after it.
    """
    until = tx.now - int(held * 1_000_000)
    query = (
        sa.select(_d.store, _d.key, _d.not_before, _d.reason == _AGAIN)
        .where(_d.store == store, _d.not_before <= until, ~leases.is_backed_up(tx))
        .order_by(_d.not_before, _d.key)
        .limit(n)
    )
    return [DueRow(*row) for row in tx.execute(query)]


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


def delete(tx: Transaction, rows: Sequence[DueRow]) -> None:
    """Forget keys whose bytes are gone for good, but for those doomed anew since they were due."""
    tx.execute(sa.delete(doomed).where(_are(rows)))


def put_off(tx: Transaction, rows: Sequence[DueRow], seconds: float) -> None:
    """Let keys that could not be removed be due in so long; as `delete`."""
    _put_off(tx, rows, seconds)


def repeat(tx: Transaction, rows: Sequence[DueRow], seconds: float) -> None:
    """Let keys whose bytes are gone be due once more in so long; as `delete`."""
    _put_off(tx, rows, seconds, reason=_AGAIN)


def _put_off(tx: Transaction, rows: Sequence[DueRow], seconds: float, **more: str) -> None:
    until = tx.now + int(seconds * 1_000_000)
    tx.execute(sa.update(doomed).where(_are(rows)).values(not_before=until, **more))


def _are(rows: Sequence[DueRow]) -> sa.ColumnElement[bool]:
    keys = [(row.store, row.key, row.not_before) for row in rows]
    return sa.tuple_(_d.store, _d.key, _d.not_before).in_(keys)
