"""Verification of usage counters against the stored blobs and manifests.

A transaction that changes content also changes the counter, so the difference between the two is
constant. Only an older version of Moorage that runs next to this one changes it, because that
version does not count manifests. The difference of any moment can therefore be subtracted later,
while other transactions continue to count.
"""

import sqlalchemy as sa
from msgspec import Struct

from registry.metadata.engine.transaction import Transaction
from registry.metadata.tables import (
    blobs,
    manifests,
    quotas,
    usage_counter_blobs,
    usage_counter_repositories,
    usage_counter_shards,
    usage_counters,
)

PERIOD = 24 * 3600
"""Seconds between two comparisons of a counter."""

_q, _t, _b, _m, _s = (
    quotas.c,
    usage_counters.c,
    usage_counter_blobs.c,
    usage_counter_repositories.c,
    usage_counter_shards.c,
)


class CounterCheck(Struct, frozen=True):
    """A counter, the time of its previous check, and the bytes by which it exceeds the content."""

    counter_id: int
    pattern: str
    namespace: str
    checked_at: int
    difference: int


def is_any_due(tx: Transaction) -> bool:
    """Return whether a counter is due for comparison."""
    return tx.execute(_find_due(tx)).first() is not None


def compare_next(tx: Transaction) -> CounterCheck | None:
    """Compare the counter whose last check is oldest. Returns None if none is due."""
    # One statement sees one snapshot.
    difference = _total(_s.bytes, _s.counter_id == _t.id) - _measure_blobs() - _measure_manifests()
    query = _find_due(tx).add_columns(
        _q.pattern, _t.namespace, _t.checked_at, difference.label("difference")
    )
    row = tx.execute(query).one_or_none()
    return CounterCheck(row[0], row[1], row[2], row[3], int(row[4])) if row else None


def correct(tx: Transaction, check: CounterCheck) -> bool:
    """Subtract the difference and record the check.

    Returns False if another process has checked the counter since.
    """
    mine = sa.and_(_t.id == check.counter_id, _t.checked_at == check.checked_at)
    noted = sa.update(usage_counters).where(mine).values(checked_at=tx.read_clock())
    if not tx.execute(noted).rowcount:
        return False
    tx.quota_deltas[check.counter_id] -= check.difference
    return True


def _find_due(tx: Transaction) -> sa.Select[tuple[int]]:
    """Return the query for the counter whose last check is oldest, if it is due.

    The clock is read once, because the index cannot be used for a value that is read for every row.
    """
    now = sa.select(tx.read_clock()).scalar_subquery()
    # Counters of deleted quotas are deleted separately.
    query = sa.select(_t.id).join(quotas, _q.id == _t.quota_id)
    due = query.where(_t.checked_at <= now - PERIOD * 1_000_000)
    return due.order_by(_t.checked_at).limit(1)


def _measure_blobs() -> sa.ColumnElement[int]:
    return _total(blobs.c.size, _b.counter_id == _t.id, blobs.c.digest == _b.digest)


def _measure_manifests() -> sa.ColumnElement[int]:
    return _total(
        manifests.c.size,
        _m.counter_id == _t.id,
        _m.manifests_counted_at.is_not(None),
        manifests.c.repository_id == _m.repository_id,
    )


def _total(column: sa.Column[int], *where: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    total = sa.select(sa.func.coalesce(sa.func.sum(column), 0)).where(*where)
    return total.correlate(usage_counters).scalar_subquery()
