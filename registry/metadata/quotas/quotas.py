"""Rows of quotas, and their usage."""

import sqlalchemy as sa
from msgspec import Struct

from registry.metadata.engine.statements import Statement, insert_into
from registry.metadata.engine.transaction import Part, Transaction
from registry.metadata.pattern_filter import EACH, matches_pattern
from registry.metadata.tables import (
    quotas,
    uploads,
    usage_counter_repositories,
    usage_counter_shards,
    usage_counters,
)
from registry.oci.names import RepositoryName, list_patterns

_q, _t, _s, _u = quotas.c, usage_counters.c, usage_counter_shards.c, uploads.c

_ANOTHER = "another quota"


class QuotaRow(Struct, frozen=True):
    """A quota of `bytes` for the repositories of `pattern`."""

    id: int
    pattern: str
    bytes: int


class Standing(Struct, frozen=True):
    """The usage of a quota, in bytes.

    `used` counts distinct blobs and manifests, `reserved` counts open upload sessions, and `grown`
    is the growth in this transaction. `pattern` is the set of repositories that was measured: for a
    quota for each namespace, one namespace.
    """

    quota: QuotaRow
    pattern: str
    used: int
    reserved: int
    grown: int

    @property
    def left(self) -> int:
        """Free bytes of the quota; negative if it is exceeded."""
        return self.quota.bytes - self.used - self.reserved - self.grown


_COLUMNS = (_q.id, _q.pattern, _q.limit_bytes)

_LIST_OF = Statement(
    sa.select(*_COLUMNS).where(_q.pattern.in_(sa.bindparam("patterns"))).order_by(_q.id)
)


def put(tx: Transaction, pattern: str, size: int) -> QuotaRow:
    """Set the number of bytes that the repositories of the pattern may use."""
    tx.change_policy(Part.QUOTAS)
    # Each repository exists before the recount, or is created by a transaction that sees the quota.
    tx.lock_name(_ANOTHER)
    insert = insert_into(quotas).values(
        pattern=pattern, limit_bytes=size, created_at=tx.now, recount_cursor=""
    )
    row = tx.execute(
        insert.on_conflict_do_update(
            index_elements=[_q.pattern], set_={"limit_bytes": insert.excluded.limit_bytes}
        ).returning(*_COLUMNS)
    ).one()
    return QuotaRow(*row)


def delete(tx: Transaction, pattern: str) -> bool:
    """Delete the quota. Its usage counters are deleted later. Returns False if there is none."""
    tx.change_policy(Part.QUOTAS)
    return tx.execute(sa.delete(quotas).where(_q.pattern == pattern)).rowcount > 0


def list_all(tx: Transaction) -> list[str]:
    """Return the patterns of all quotas."""
    return list(tx.execute(sa.select(_q.pattern)).scalars())


def list_page(tx: Transaction, n: int, last: str) -> list[QuotaRow]:
    """Return at most `n` quotas after the pattern `last`, in byte order."""
    query = sa.select(*_COLUMNS).where(_q.pattern > last).order_by(_q.pattern).limit(n)
    return [QuotaRow(*row) for row in tx.execute(query)]


def is_counted(tx: Transaction, row: QuotaRow) -> bool:
    """Return whether all existing content is counted for the quota.

    Content from before the quota, or from before a version of Moorage that counts manifests, is
    counted later.
    """
    uncounted = sa.select(_q.id).where(_q.id == row.id, _q.recount_cursor.is_not(None))
    without_manifests = (
        sa.select(_t.id)
        .join(usage_counter_repositories, usage_counter_repositories.c.counter_id == _t.id)
        .where(_t.quota_id == row.id, usage_counter_repositories.c.manifests_counted_at.is_(None))
    )
    query = sa.select(sa.or_(uncounted.exists(), without_manifests.exists()))
    return not tx.execute(query).scalar_one()


def list_for_birth(tx: Transaction, name: RepositoryName) -> list[QuotaRow]:
    """Return the quotas as `list_of` does, for a repository that this transaction creates.

    Takes a lock that delays new quotas until the repository exists.
    """
    tx.lock_name(_ANOTHER, shared=True)
    return list_of(tx, name)


def list_of(tx: Transaction, name: RepositoryName) -> list[QuotaRow]:
    """Return the quotas whose patterns match the repository."""
    rows = tx.fetch_all(_LIST_OF, patterns=list_matching_patterns(name))
    return [QuotaRow(*row) for row in rows]


def list_matching_patterns(name: RepositoryName) -> list[str]:
    """Return the patterns that match the repository."""
    patterns = list_patterns(str(name))
    return [*patterns, EACH] if find_namespace(name) else patterns


def find_namespace(name: RepositoryName) -> str:
    """Return the first part of a name that has several parts, else an empty string."""
    namespace, slash, _ = str(name).partition("/")
    return namespace if slash else ""


def list_standings(
    tx: Transaction, name: RepositoryName, *, before: str | None = None
) -> list[Standing]:
    """Return the usage of the quotas that apply to the repository.

    If a namespace has its own quota, the quota for each namespace does not apply to it. With
    `before`, only sessions with a smaller ID count as reserved.
    """
    found = list_of(tx, name)
    own = f"{find_namespace(name)}/**"
    if own in {row.pattern for row in found}:
        found = [row for row in found if row.pattern != EACH]
    return [
        _measure(tx, row, find_namespace(name) if row.pattern == EACH else "", before)
        for row in found
    ]


def find_fullest(tx: Transaction, row: QuotaRow) -> Standing:
    """Return the usage of the quota, or of its most used namespace if it is for each namespace."""
    if row.pattern != EACH:
        return _measure(tx, row, "", None)
    own = sa.select(_q.id).where(_q.pattern == _t.namespace + "/**")
    total = sa.func.coalesce(sa.func.sum(_s.bytes), 0)
    query = (
        sa.select(_t.namespace)
        .join(usage_counter_shards, _s.counter_id == _t.id, isouter=True)
        .where(_t.quota_id == row.id, ~own.exists())
        .group_by(_t.namespace)
        .order_by(total.desc(), _t.namespace)
        .limit(1)
    )
    namespace = tx.execute(query).scalar_one_or_none()
    return _measure(tx, row, namespace, None) if namespace else Standing(row, EACH, 0, 0, 0)


def _measure(tx: Transaction, row: QuotaRow, namespace: str, before: str | None) -> Standing:
    pattern = f"{namespace}/**" if namespace else row.pattern
    sessions = [matches_pattern(_u.repository, pattern)]
    if before is not None:
        sessions.append(_u.id < before)
    # One statement sees one snapshot, in which a session that ends is either reserved or used.
    query = (
        sa.select(
            _t.id,
            sa.select(sa.func.sum(_s.bytes)).where(_s.counter_id == _t.id).scalar_subquery(),
            sa.select(sa.func.sum(_u.offset)).where(*sessions).scalar_subquery(),
        )
        .select_from(quotas)
        .join(
            usage_counters, sa.and_(_t.quota_id == _q.id, _t.namespace == namespace), isouter=True
        )
        .where(_q.id == row.id)
    )
    found = tx.execute(query).one_or_none()
    counter_id, used, reserved = found if found is not None else (None, 0, 0)
    grown = tx.quota_deltas[counter_id] if counter_id is not None else 0
    return Standing(row, pattern, int(used or 0), int(reserved or 0), grown)


def ensure_counter(tx: Transaction, row: QuotaRow, name: RepositoryName) -> int:
    """Return the ID of the quota's usage counter for the repository. Creates it if needed."""
    values = {
        "quota_id": row.id,
        "namespace": find_namespace(name) if row.pattern == EACH else "",
    }
    known = sa.select(_t.id).where(*(_t[key] == value for key, value in values.items()))
    found = tx.execute(known).scalar_one_or_none()
    if found is not None:
        return int(found)
    # Nothing is counted yet, so there is nothing to compare.
    insert = insert_into(usage_counters).values(**values, checked_at=tx.read_clock())
    # DO UPDATE, not DO NOTHING, to return the row that another transaction inserted.
    return int(
        tx.execute(
            insert.on_conflict_do_update(
                index_elements=[_t.quota_id, _t.namespace],
                set_={"namespace": insert.excluded.namespace},
            ).returning(_t.id)
        ).scalar_one()
    )
