"""The queue of pending deletions from stores: every key in a store has a row."""

from collections.abc import Collection, Sequence

import sqlalchemy as sa
from msgspec import Struct

from registry.metadata.engine import leases
from registry.metadata.engine.statements import Statement, bind, insert_into
from registry.metadata.engine.transaction import Transaction
from registry.metadata.tables import pending_deletions

_d = pending_deletions.c

_AGAIN = "second deletion"


def _prepare_insert() -> Statement:
    rows = insert_into(pending_deletions).values(bind("store", "key", "reason", "not_before"))
    told = rows.excluded.not_before
    # If the bytes are already deleted, an earlier time is safe.
    free = sa.and_(_d.reason == _AGAIN, told < _d.not_before)
    later = sa.case((sa.or_(told > _d.not_before, free), told), else_=_d.not_before + 1)
    changed = {"not_before": later, "reason": rows.excluded.reason}
    return Statement(rows.on_conflict_do_update(index_elements=[_d.store, _d.key], set_=changed))


_INSERT = _prepare_insert()


class DueRow(Struct, frozen=True):
    """A key that is due for deletion.

    `not_before`, in microseconds, changes each time the key is queued or deferred. A result for an
    earlier value therefore does not apply to the current one.
    """

    store: str
    key: str
    not_before: int
    again: bool
    """Whether the bytes were deleted before and are due to be deleted a second time."""


def insert(tx: Transaction, store: str, key: str, reason: str, *, not_before: int = 0) -> None:
    """Queue a key for deletion.

    `not_before` is the earliest time of the deletion, in microseconds. It is raised to now, so that
    `list_due` knows how long the key has been queued, and to the earlier `not_before` of the key.
    """
    insert_all(tx, [(store, key)], reason, not_before=not_before)


def insert_all(
    tx: Transaction, keys: Collection[tuple[str, str]], reason: str, *, not_before: int = 0
) -> None:
    """Queue keys, each with its store, as `insert` does."""
    rest = {"reason": reason, "not_before": max(not_before, tx.now)}
    rows = [{"store": store, "key": key, **rest} for store, key in sorted(keys)]
    tx.run_each(_INSERT, rows)


def list_due(tx: Transaction, store: str, n: int, *, held: float = 0.0) -> list[DueRow]:
    """Return at most `n` keys of the store that have been due for at least `held` seconds.

    Returns none during a backup, whose snapshot may name keys that were queued after it.
    """
    until = tx.now - int(held * 1_000_000)
    query = (
        sa.select(_d.store, _d.key, _d.not_before, _d.reason == _AGAIN)
        .where(_d.store == store, _d.not_before <= until, ~leases.is_backed_up(tx))
        .order_by(_d.not_before, _d.key)
        .limit(n)
    )
    return [DueRow(*row) for row in tx.execute(query)]


def list_by_prefix(tx: Transaction, store: str, start: str, n: int) -> list[tuple[str, int]]:
    """Return at most `n` keys of the store that begin with `start`, each with its `not_before`."""
    query = sa.select(_d.key, _d.not_before).where(
        _d.store == store, _d.key >= start, _d.key < f"{start}~"
    )
    return [(row.key, row.not_before) for row in tx.execute(query.order_by(_d.key).limit(n))]


def count_in(tx: Transaction, store: str) -> int:
    """Return the number of queued keys of the store."""
    query = sa.select(sa.func.count()).select_from(pending_deletions).where(_d.store == store)
    return int(tx.execute(query).scalar_one())


def delete(tx: Transaction, rows: Sequence[DueRow]) -> None:
    """Remove keys whose bytes are deleted for good, unless they were queued again meanwhile."""
    tx.execute(sa.delete(pending_deletions).where(_are(rows)))


def defer(tx: Transaction, rows: Sequence[DueRow], seconds: float) -> None:
    """Defer keys that could not be deleted by `seconds`, unless they were queued again."""
    _put_off(tx, rows, seconds)


def schedule_second_delete(tx: Transaction, rows: Sequence[DueRow], seconds: float) -> None:
    """Delete keys a second time after `seconds`, unless they were queued again."""
    _put_off(tx, rows, seconds, reason=_AGAIN)


def _put_off(tx: Transaction, rows: Sequence[DueRow], seconds: float, **more: str) -> None:
    until = tx.now + int(seconds * 1_000_000)
    tx.execute(sa.update(pending_deletions).where(_are(rows)).values(not_before=until, **more))


def _are(rows: Sequence[DueRow]) -> sa.ColumnElement[bool]:
    keys = [(row.store, row.key, row.not_before) for row in rows]
    return sa.tuple_(_d.store, _d.key, _d.not_before).in_(keys)
