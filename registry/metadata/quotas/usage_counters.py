"""Usage counters for quotas, updated in the transactions that change the content.

A counter counts distinct blobs in the repositories that it tracks. A transaction that links or
unlinks a blob locks the repository shared, and one that starts to track a repository locks it
exclusively. Each link is therefore counted once: by the transaction that made it, or by the one
that started to track its repository. Manifests are counted in the same way, once in every
repository that has them, because each repository stores its own bytes.
"""

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from registry.metadata.engine.statements import Statement, insert_into
from registry.metadata.engine.transaction import Transaction
from registry.metadata.quotas import quotas
from registry.metadata.tables import (
    ID,
    blobs,
    manifests,
    repository_blobs,
    usage_counter_blobs,
    usage_counter_repositories,
)
from registry.oci.names import RepositoryName
from storage.digest import Digest

_b, _l, _c, _m = blobs.c, repository_blobs.c, usage_counter_blobs.c, usage_counter_repositories.c


def track_new(tx: Transaction, repository_id: int, name: RepositoryName) -> None:
    """Track a repository that this transaction created, which is empty."""
    for row in quotas.list_for_birth(tx, name):
        _enroll(tx, [repository_id], quotas.ensure_counter(tx, row, name))


def track(tx: Transaction, repository_ids: list[int], counter_id: int) -> None:
    """Track repositories and count their content. The caller has locked them exclusively."""
    if not repository_ids:
        return
    _enroll(tx, repository_ids, counter_id)
    links = (
        sa.select(_l.digest, sa.func.count().label("links"))
        .where(_l.repository_id.in_(repository_ids))
        .group_by(_l.digest)
        .subquery()
    )
    # In the lock order of other transactions.
    new = sa.select(sa.literal(counter_id), links.c.digest, links.c.links).order_by(links.c.digest)
    tx.execute(_adding(new.where(sa.true())))
    first = (
        sa.select(sa.func.coalesce(sa.func.sum(_b.size), 0))
        .join(usage_counter_blobs, _c.digest == _b.digest)
        .join(links, links.c.digest == _b.digest)
        .where(_c.counter_id == counter_id, _c.repository_count == links.c.links)
    )
    tx.quota_deltas[counter_id] += int(tx.execute(first).scalar_one())
    tx.quota_deltas[counter_id] += _measure_manifests(tx, repository_ids)


def _enroll(tx: Transaction, repository_ids: list[int], counter_id: int) -> None:
    same = {"counter_id": counter_id, "manifests_counted_at": tx.now}
    rows = [{"repository_id": each, **same} for each in repository_ids]
    tx.execute(sa.insert(usage_counter_repositories).values(rows))


def _measure_manifests(tx: Transaction, repository_ids: list[int]) -> int:
    """Return the bytes of all manifests of the repositories."""
    size = sa.func.coalesce(sa.func.sum(manifests.c.size), 0)
    query = sa.select(size).where(manifests.c.repository_id.in_(repository_ids))
    return int(tx.execute(query).scalar_one())


def enroll_manifests(tx: Transaction, repository_id: int) -> None:
    """Count the manifests of a repository in the counters that count only its blobs.

    The caller has locked the repository exclusively.
    """
    uncounted = sa.and_(_m.repository_id == repository_id, _m.manifests_counted_at.is_(None))
    size = _measure_manifests(tx, [repository_id])
    counted = (
        sa.update(usage_counter_repositories).where(uncounted).values(manifests_counted_at=tx.now)
    )
    for counter_id in tx.execute(counted.returning(_m.counter_id)).scalars():
        tx.quota_deltas[counter_id] += size


def counts_manifests(repository_id: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    """Return the condition that a counter counts the manifests of the repository.

    It is added to a statement that changes a manifest, which is cheaper than a separate query.
    """
    return _list_for_manifests(repository_id).exists()


def _list_for_manifests(repository_id: sa.ColumnElement[int]) -> sa.Select[tuple[int]]:
    return sa.select(_m.counter_id).where(
        _m.repository_id == repository_id, _m.manifests_counted_at.is_not(None)
    )


_LIST_FOR_MANIFESTS = Statement(_list_for_manifests(sa.bindparam("repository", type_=ID)))


def add_manifests(tx: Transaction, repository_id: int, size: int) -> None:
    """Count `size` bytes of manifests inserted in this transaction; negative for deleted ones."""
    for counter_id in tx.fetch_values(_LIST_FOR_MANIFESTS, repository=repository_id):
        tx.quota_deltas[counter_id] += size


def untrack(tx: Transaction, repository_id: int) -> None:
    """Stop tracking a repository that is empty."""
    tx.execute(sa.delete(usage_counter_repositories).where(_m.repository_id == repository_id))


def add(tx: Transaction, repository_id: int, digest: Digest) -> None:
    """Count a blob that was linked to the repository in this transaction."""
    added = tx.fetch_all(_ADD_LINK, repository=repository_id, digest=digest)
    first = [counter_id for counter_id, count in added if count == 1]
    if first:
        tx.quota_deltas.update(dict.fromkeys(first, tx.fetch_value(_FIND_SIZE, digest=digest)))


def _adding(links: sa.Select[Any]) -> sa.Insert:
    """Return the statement that adds links: counter, digest and number of repositories."""
    rows = insert_into(usage_counter_blobs).from_select(
        ["counter_id", "digest", "repository_count"], links
    )
    count = _c.repository_count + rows.excluded.repository_count
    return rows.on_conflict_do_update(
        index_elements=[_c.counter_id, _c.digest], set_={"repository_count": count}
    )


_ADD_LINK = Statement(
    _adding(
        sa.select(_m.counter_id, sa.bindparam("digest", type_=_c.digest.type), sa.literal(1))
        .where(_m.repository_id == sa.bindparam("repository"))
        .order_by(_m.counter_id)
    ).returning(_c.counter_id, _c.repository_count)
)
_FIND_SIZE = Statement(sa.select(_b.size).where(_b.digest == sa.bindparam("digest")))


def remove(tx: Transaction, repository_id: int, digests: Collection[Digest]) -> None:
    """Subtract blobs that were unlinked from the repository in this transaction."""
    if digests:
        _remove(tx, repository_id, _c.digest.in_(digests))


def remove_all(tx: Transaction, repository_id: int) -> None:
    """Subtract all blobs and manifests of a repository that is about to be deleted."""
    here = sa.select(_l.digest).where(_l.repository_id == repository_id)
    _remove(tx, repository_id, _c.digest.in_(here))
    add_manifests(tx, repository_id, -_measure_manifests(tx, [repository_id]))


def _remove(tx: Transaction, repository_id: int, digests: sa.ColumnElement[bool]) -> None:
    enrolled = sa.select(_m.counter_id).where(_m.repository_id == repository_id)
    ids = list(tx.execute(enrolled.order_by(_m.counter_id)).scalars())
    if not ids:
        return
    counted = sa.and_(_c.counter_id.in_(ids), digests)
    tx.lock_rows(sa.select(_c.digest).where(counted).order_by(_c.digest, _c.counter_id))
    last = sa.and_(counted, _c.repository_count == 1)
    freed = sa.select(_c.counter_id, sa.func.sum(_b.size)).join(blobs, _b.digest == _c.digest)
    for counter_id, size in tx.execute(freed.where(last).group_by(_c.counter_id)):
        tx.quota_deltas[counter_id] -= int(size)
    tx.execute(sa.delete(usage_counter_blobs).where(last))
    tx.execute(
        sa.update(usage_counter_blobs)
        .where(counted)
        .values(repository_count=_c.repository_count - 1)
    )
