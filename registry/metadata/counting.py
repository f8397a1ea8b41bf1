"""Counting for a quota what was there before it, and sweeping what was counted for one that is
gone: in steps, each a small transaction.
"""

import sqlalchemy as sa

from registry.metadata import quotas, tallies
from registry.metadata.areas import is_within
from registry.metadata.tables import (
    TEXT,
    repositories,
    tally_blobs,
    tally_repositories,
    tally_shards,
)
from registry.metadata.tables import quotas as quota_table
from registry.metadata.tables import tallies as tally_table
from registry.metadata.transaction import Transaction

SWEPT = 1000
"""Counted blobs that one step sweeps."""

_q, _t, _r = quota_table.c, tally_table.c, repositories.c
_b, _m, _s = tally_blobs.c, tally_repositories.c, tally_shards.c

_UNCOUNTED = sa.select(_q.id).where(_q.counted_to.is_not(None))
_LEFT = sa.select(_t.id).where(_t.quota_id.not_in(sa.select(_q.id)))


def is_any_due(tx: Transaction) -> bool:
    """Whether there is anything to count or to sweep."""
    query = sa.select(sa.or_(_UNCOUNTED.exists(), _LEFT.exists()))
    return bool(tx.execute(query).scalar_one())


def count_next(tx: Transaction) -> bool:
    """Count the next repository of a quota that is not counted; False: there is none such."""
    query = sa.select(_q.id, _q.pattern, _q.bytes, _q.counted_to)
    query = query.where(_q.counted_to.is_not(None)).order_by(_q.id).limit(1)
    found = tx.execute(query.with_for_update()).one_or_none()
    if found is None:
        return False
    quota = quotas.QuotaRow(found[0], found[1], found[2], counted=False)
    after = sa.type_coerce(_r.name, TEXT) > found[3]
    names = sa.select(_r.name).where(is_within(_r.name, quota.pattern), after)
    name = tx.execute(names.order_by(_r.name).limit(1)).scalar_one_or_none()
    if name is not None:
        # Alone: who links or unlinks here has ended, or waits and then knows of the tally.
        held = sa.select(_r.id).where(_r.name == name).with_for_update()
        repository_id = tx.execute(held).scalar_one_or_none()
        if repository_id is not None:
            tallies.enroll(tx, repository_id, quotas.find_tally(tx, quota, name))
    to = None if name is None else str(name)
    tx.execute(sa.update(quota_table).where(_q.id == quota.id).values(counted_to=to))
    return True


def sweep_next(tx: Transaction) -> bool:
    """Sweep some of what was counted for a quota that is gone; False: there is nothing such."""
    tally_id = tx.execute(_LEFT.order_by(_t.id).limit(1)).scalar_one_or_none()
    if tally_id is None:
        return False
    enrolled = sa.select(_m.repository_id).where(_m.tally_id == tally_id).limit(1)
    repository_id = tx.execute(enrolled).scalar_one_or_none()
    if repository_id is not None:
        # Alone, as above: nobody who counted here comes late.
        tx.execute(sa.select(_r.id).where(_r.id == repository_id).with_for_update())
        mine = sa.and_(_m.tally_id == tally_id, _m.repository_id == repository_id)
        tx.execute(sa.delete(tally_repositories).where(mine))
        return True
    some = sa.select(_b.digest).where(_b.tally_id == tally_id).limit(SWEPT)
    swept = sa.delete(tally_blobs).where(_b.tally_id == tally_id, _b.digest.in_(some))
    if tx.execute(swept).rowcount:
        return True
    tx.execute(sa.delete(tally_shards).where(_s.tally_id == tally_id))
    tx.execute(sa.delete(tally_table).where(_t.id == tally_id))
    return True
