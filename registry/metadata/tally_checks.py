"""Comparing the bytes of a tally with the blobs that it counts and the manifests that are stored.

A transaction that changes what a tally counts changes the bytes of the tally as well, so the
difference of the two is the same at every moment. Only an older version of Moorage that runs beside
this one changes it: that version does not count manifests. The difference of any moment can be
subtracted later, while others go on counting.
"""

from dataclasses import dataclass

import sqlalchemy as sa

from registry.metadata.tables import (
    blobs,
    manifests,
    quotas,
    tallies,
    tally_blobs,
    tally_repositories,
    tally_shards,
)
from registry.metadata.transaction import Transaction

PERIOD = 24 * 3600
"""Seconds between two comparisons of a tally."""

_q, _t, _b, _m, _s = quotas.c, tallies.c, tally_blobs.c, tally_repositories.c, tally_shards.c


@dataclass(frozen=True, slots=True)
class TallyCheck:
    """A tally, when it was checked before, and by how many bytes it exceeds what is stored."""

    tally_id: int
    pattern: str
    namespace: str
    checked_at: int
    difference: int


def is_any_due(tx: Transaction) -> bool:
    """Return whether a tally is to be compared."""
    return tx.execute(_find_due(tx)).first() is not None


def compare_next(tx: Transaction) -> TallyCheck | None:
    """Compare the tally that was not compared for longest; None if none is due."""
    # One statement, hence one moment.
    difference = _total(_s.bytes, _s.tally_id == _t.id) - _measure_blobs() - _measure_manifests()
    query = _find_due(tx).add_columns(
        _q.pattern, _t.namespace, _t.checked_at, difference.label("difference")
    )
    row = tx.execute(query).one_or_none()
    return TallyCheck(row[0], row[1], row[2], row[3], int(row[4])) if row else None


def correct(tx: Transaction, check: TallyCheck) -> bool:
    """Subtract the difference, and note that the tally is checked; False if another process has
    done so since.
    """
    mine = sa.and_(_t.id == check.tally_id, _t.checked_at == check.checked_at)
    noted = sa.update(tallies).where(mine).values(checked_at=tx.read_clock())
    if not tx.execute(noted).rowcount:
        return False
    tx.tallied[check.tally_id] -= check.difference
    return True


def _find_due(tx: Transaction) -> sa.Select[tuple[int]]:
    """The tally that was not compared for longest, if it is due. In the order of the index, which
    is of no use for a clock that is read for every row.
    """
    now = sa.select(tx.read_clock()).scalar_subquery()
    # What is counted for a quota that is gone is swept.
    query = sa.select(_t.id).join(quotas, _q.id == _t.quota_id)
    due = query.where(_t.checked_at <= now - PERIOD * 1_000_000)
    return due.order_by(_t.checked_at).limit(1)


def _measure_blobs() -> sa.ColumnElement[int]:
    return _total(blobs.c.size, _b.tally_id == _t.id, blobs.c.digest == _b.digest)


def _measure_manifests() -> sa.ColumnElement[int]:
    return _total(
        manifests.c.size,
        _m.tally_id == _t.id,
        _m.manifests_counted_at.is_not(None),
        manifests.c.repository_id == _m.repository_id,
    )


def _total(column: sa.Column[int], *where: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    total = sa.select(sa.func.coalesce(sa.func.sum(column), 0)).where(*where)
    return total.correlate(tallies).scalar_subquery()
