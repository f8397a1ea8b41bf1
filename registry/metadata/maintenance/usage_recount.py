"""Background recount of usage counters, in steps that are small transactions.

It counts content that existed before its quota, counts manifests where an older version of Moorage
counted only blobs, and deletes the counters of deleted quotas.
"""

import sqlalchemy as sa

from registry.metadata.content import repositories
from registry.metadata.engine.transaction import Transaction
from registry.metadata.pattern_filter import EACH, matches_pattern
from registry.metadata.quotas import quotas, usage_counters
from registry.metadata.quotas.quotas import find_namespace
from registry.metadata.tables import (
    TEXT,
    usage_counter_blobs,
    usage_counter_repositories,
    usage_counter_shards,
)
from registry.metadata.tables import quotas as quota_table
from registry.metadata.tables import repositories as repository_table
from registry.metadata.tables import usage_counters as counter_table
from registry.oci.names import RepositoryName

COUNTED = 20
"""Repositories counted in one step, during which pushes to them wait."""

SWEPT = 1000
"""Counted blobs deleted in one step."""

_q, _t, _r = quota_table.c, counter_table.c, repository_table.c
_b, _m, _s = usage_counter_blobs.c, usage_counter_repositories.c, usage_counter_shards.c

_UNCOUNTED = sa.select(_q.id).where(_q.recount_cursor.is_not(None))
_WITHOUT_MANIFESTS = sa.select(_m.repository_id).where(_m.manifests_counted_at.is_(None))
_LEFT = sa.select(_t.id).where(_t.quota_id.not_in(sa.select(_q.id)))


def is_any_due(tx: Transaction) -> bool:
    """Return whether there is anything to count or to delete."""
    due = (_UNCOUNTED, _WITHOUT_MANIFESTS, _LEFT)
    query = sa.select(sa.or_(*(each.exists() for each in due)))
    return bool(tx.execute(query).scalar_one())


def count_next(tx: Transaction) -> bool:
    """Count more repositories of a quota that is not fully counted.

    Returns False if there is no such quota.
    """
    query = sa.select(_q.id, _q.pattern, _q.limit_bytes, _q.recount_cursor)
    query = query.where(_q.recount_cursor.is_not(None)).order_by(_q.id).limit(1)
    found = tx.execute(query.with_for_update()).one_or_none()
    if found is None:
        return False
    quota = quotas.QuotaRow(found[0], found[1], found[2])
    some = _list_next(tx, quota, found[3])
    if some:
        # The lock is exclusive: a transaction that links or unlinks blobs here has ended, or waits
        # and then sees the counter.
        mine = _r.id.in_([repository_id for repository_id, _ in some])
        held = sa.select(_r.id).where(mine).order_by(_r.name).with_for_update()
        ids = list(tx.execute(held).scalars())
        usage_counters.track(tx, ids, quotas.ensure_counter(tx, quota, some[-1][1]))
    to = str(some[-1][1]) if some else None
    tx.execute(sa.update(quota_table).where(_q.id == quota.id).values(recount_cursor=to))
    return True


def _list_next(
    tx: Transaction, quota: quotas.QuotaRow, last: str
) -> list[tuple[int, RepositoryName]]:
    """Return the next repositories, all of one counter, that are not yet tracked by it.

    Tracked repositories must not be locked: a transaction that counts in them may wait for rows
    that this transaction changes.
    """
    enrolled = (
        sa.select(_m.repository_id)
        .join(counter_table, _t.id == _m.counter_id)
        .where(_t.quota_id == quota.id, _m.repository_id == _r.id)
    )
    after = sa.type_coerce(_r.name, TEXT) > last
    query = sa.select(_r.id, _r.name).where(
        matches_pattern(_r.name, quota.pattern), after, ~enrolled.exists()
    )
    found = [(row[0], row[1]) for row in tx.execute(query.order_by(_r.name).limit(COUNTED))]
    if quota.pattern != EACH or not found:
        return found
    namespace = find_namespace(found[0][1])
    return [(each, name) for each, name in found if find_namespace(name) == namespace]


def count_manifests_next(tx: Transaction) -> bool:
    """Count the manifests of a repository that has only its blobs counted.

    Returns False if there is no such repository.
    """
    query = _WITHOUT_MANIFESTS.order_by(_m.repository_id).limit(1)
    repository_id = tx.execute(query).scalar_one_or_none()
    if repository_id is None:
        return False
    # The lock is exclusive: a transaction that changes a manifest here has ended, or waits and then
    # sees that manifests are counted.
    if repositories.find_by_id(tx, repository_id, lock=True) is not None:
        usage_counters.enroll_manifests(tx, repository_id)
    return True


def sweep_next(tx: Transaction) -> bool:
    """Delete some of the counts of a deleted quota. Returns False if there are none."""
    counter_id = tx.execute(_LEFT.order_by(_t.id).limit(1)).scalar_one_or_none()
    if counter_id is None:
        return False
    enrolled = sa.select(_m.repository_id).where(_m.counter_id == counter_id).limit(1)
    repository_id = tx.execute(enrolled).scalar_one_or_none()
    if repository_id is not None:
        # The lock is exclusive, so no transaction that counted here is still open.
        tx.execute(sa.select(_r.id).where(_r.id == repository_id).with_for_update())
        mine = sa.and_(_m.counter_id == counter_id, _m.repository_id == repository_id)
        tx.execute(sa.delete(usage_counter_repositories).where(mine))
        return True
    some = sa.select(_b.digest).where(_b.counter_id == counter_id).order_by(_b.digest).limit(SWEPT)
    tx.lock_rows(some)
    swept = sa.delete(usage_counter_blobs).where(_b.counter_id == counter_id, _b.digest.in_(some))
    if tx.execute(swept).rowcount:
        return True
    # First the counter's own row: its deletion waits for a transaction that creates a repository
    # and found the counter before.
    tx.execute(sa.delete(counter_table).where(_t.id == counter_id))
    tx.execute(sa.delete(usage_counter_shards).where(_s.counter_id == counter_id))
    return True
