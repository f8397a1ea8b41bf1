"""The garbage collection queue, filled by `Transaction.queue`."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from msgspec import Struct

from registry.metadata.engine.statements import DatabaseClock, Statement
from registry.metadata.engine.transaction import CandidateKind, Transaction
from registry.metadata.gc import retainers
from registry.metadata.tables import blobs, gc_queue, manifests, repository_blobs
from storage.digest import Digest

_c = gc_queue.c

SECOND = 1_000_000


class Candidate(Struct, frozen=True, order=True):
    """An item to examine. `since` is the start of its grace period, in microseconds."""

    since: int
    repository_id: int
    kind: CandidateKind
    digest: Digest


class Evaluated(Struct, frozen=True):
    """The result for one candidate. `is_idle`: it exists and has no retainer."""

    candidate: Candidate
    is_idle: bool


_COLUMNS = (_c.grace_started_at, _c.repository_id, _c.kind, _c.digest)

_TOUCH = Statement(
    sa.update(gc_queue)
    .where(_c.repository_id == sa.bindparam("repository"))
    .where(_c.kind == sa.bindparam("kind"), _c.digest == sa.bindparam("digest"))
    .values(grace_started_at=DatabaseClock() + sa.bindparam("extend_by_us", type_=sa.BigInteger))
)


def _candidate(row: Sequence[Any]) -> Candidate:
    return Candidate(row[0], row[1], CandidateKind(row[2]), row[3])


def list_due(tx: Transaction, until: int, n: int, last: Candidate | None = None) -> list[Candidate]:
    """Return at most `n` candidates whose grace period began by `until`, oldest first.

    `last` is the candidate to continue after.
    """
    query = sa.select(*_COLUMNS).where(_c.parked_by == "", _c.grace_started_at <= until)
    if last is not None:
        after = (last.since, last.repository_id, last.kind.value, last.digest)
        query = query.where(sa.tuple_(*_COLUMNS) > sa.tuple_(*_literals(after)))
    return [_candidate(row) for row in tx.execute(query.order_by(*_COLUMNS).limit(n))]


def _literals(values: Sequence[Any]) -> list[sa.ColumnElement[Any]]:
    return [sa.literal(value, column.type) for value, column in zip(values, _COLUMNS, strict=True)]


def evaluate(
    tx: Transaction, kind: CandidateKind, repository_id: int, digests: Sequence[Digest], until: int
) -> list[Evaluated]:
    """Return the current state of those candidates whose grace period began by `until`, by digest.

    To act on the result, call `lock` in an earlier statement.
    """
    kept = retainers.is_retained(kind, _c.repository_id, _c.digest)
    query = (
        sa.select(*_COLUMNS, sa.and_(_is_present(kind), sa.not_(kept)))
        .where(_of(kind, repository_id, digests), _c.grace_started_at <= until)
        .order_by(_c.digest)
    )
    return [Evaluated(_candidate(row), bool(row[-1])) for row in tx.execute(query)]


def lock(
    tx: Transaction, kind: CandidateKind, repository_id: int, digests: Sequence[Digest]
) -> list[Digest]:
    """Lock those candidates that no other transaction is queueing or touching, and return them."""
    query = sa.select(_c.digest).where(_of(kind, repository_id, digests)).order_by(_c.digest)
    return list(tx.execute(query.with_for_update(skip_locked=True)).scalars())


def _is_present(kind: CandidateKind) -> sa.ColumnElement[bool]:
    if kind is CandidateKind.BLOB:
        return sa.select(blobs.c.digest).where(blobs.c.digest == _c.digest).exists()
    table = manifests if kind is CandidateKind.MANIFEST else repository_blobs
    here = sa.and_(table.c.repository_id == _c.repository_id, table.c.digest == _c.digest)
    return sa.select(table.c.digest).where(here).exists()


def is_stale(
    kind: CandidateKind,
    repository_id: sa.ColumnElement[int],
    digest: sa.ColumnElement[Any],
) -> sa.ColumnElement[bool]:
    """Return the condition that only a grace period that began earlier retains the item.

    Such an item has to be touched before a response confirms that it exists. An item with a
    retainer gets a new grace period when it loses the last one.
    """
    waits = (
        sa.select(_c.digest)
        .where(_c.repository_id == repository_id, _c.kind == kind.value, _c.digest == digest)
        # An index cannot be used for a value that is read again for every row.
        .where(_c.grace_started_at < sa.select(DatabaseClock()).scalar_subquery())
        .exists()
    )
    return sa.and_(waits, sa.not_(retainers.is_retained(kind, repository_id, digest)))


def find_grace_start(
    kind: CandidateKind,
    repository_id: sa.ColumnElement[int],
    digest: sa.ColumnElement[Any],
) -> sa.ScalarSelect[int | None]:
    """Return the query of when the item's grace period began, in microseconds.

    The result is NULL unless only the grace period retains the item. If it is in the past, the
    condition of `is_stale` holds.
    """
    return (
        sa.select(_c.grace_started_at)
        .where(_c.repository_id == repository_id, _c.kind == kind.value, _c.digest == digest)
        .where(sa.not_(retainers.is_retained(kind, _c.repository_id, _c.digest)))
        .scalar_subquery()
    )


def touch(
    tx: Transaction, kind: CandidateKind, repository_id: int, digest: Digest, extend_by: float
) -> bool:
    """Restart the grace period `ahead` seconds from now; until then no other touch is needed.

    Returns False if the item is no longer a candidate.
    """
    us = int(extend_by * SECOND)
    place = {"repository": repository_id, "kind": kind.value, "digest": digest}
    return tx.run(_TOUCH, extend_by_us=us, **place) > 0


def _of(
    kind: CandidateKind, repository_id: int, digests: Sequence[Digest]
) -> sa.ColumnElement[bool]:
    return sa.and_(_c.repository_id == repository_id, _c.kind == kind.value, _c.digest.in_(digests))


def delete(
    tx: Transaction, kind: CandidateKind, repository_id: int, digests: Sequence[Digest]
) -> None:
    """Remove candidates that were deleted or that have a retainer."""
    if digests:
        tx.execute(sa.delete(gc_queue).where(_of(kind, repository_id, digests)))


def postpone(
    tx: Transaction, kind: CandidateKind, repository_id: int, digests: Sequence[Digest]
) -> None:
    """Restart the grace period."""
    if digests:
        query = sa.update(gc_queue).where(_of(kind, repository_id, digests))
        tx.execute(query.values(grace_started_at=tx.read_clock()))


def park(tx: Transaction, repository_id: int, digests: Sequence[Digest], rules: str) -> None:
    """Set manifests aside until the rules differ from those with this fingerprint."""
    if digests:
        query = sa.update(gc_queue).where(_of(CandidateKind.MANIFEST, repository_id, digests))
        tx.execute(query.values(parked_by=rules))


def list_last(
    tx: Transaction, repository_id: int, digests: Sequence[Digest], until: int
) -> set[Digest]:
    """Return the blobs that no other link retains once this repository's links are removed.

    Other links that are due for removal do not count, but only in repositories with higher IDs.
    Each blob is therefore returned for one repository only.
    """
    here, other, waiting = repository_blobs.alias(), repository_blobs.alias(), gc_queue.alias()
    goes = sa.and_(
        sa.select(waiting.c.digest)
        .where(
            waiting.c.repository_id == other.c.repository_id,
            waiting.c.kind == CandidateKind.LINK.value,
        )
        .where(waiting.c.digest == other.c.digest, waiting.c.grace_started_at <= until)
        .exists(),
        sa.not_(retainers.is_retained(CandidateKind.LINK, other.c.repository_id, other.c.digest)),
    )
    keeping = (
        sa.select(other.c.digest)
        .where(other.c.digest == here.c.digest, other.c.repository_id != repository_id)
        .where(sa.or_(other.c.repository_id < repository_id, sa.not_(goes)))
        .exists()
    )
    query = sa.select(here.c.digest).where(
        here.c.repository_id == repository_id, here.c.digest.in_(digests), sa.not_(keeping)
    )
    return set(tx.execute(query).scalars())


def find(
    tx: Transaction, kind: CandidateKind, repository_id: int, digest: Digest
) -> Candidate | None:
    row = tx.execute(sa.select(*_COLUMNS).where(_of(kind, repository_id, [digest]))).one_or_none()
    return _candidate(row) if row else None


def count_due(tx: Transaction, until: int) -> int:
    """Return the number of candidates that `list_due` would return without a limit."""
    query = sa.select(sa.func.count()).where(_c.parked_by == "", _c.grace_started_at <= until)
    return int(tx.execute(query).scalar_one())


def needs_repair(tx: Transaction, rules: str, latest: int) -> bool:
    """Return whether `unpark` or `repair_future_times` would change any row."""
    odd = (*_parked_by_others(rules), _is_ahead(latest))
    found = (sa.select(_c.digest).where(each).limit(1) for each in odd)
    return any(tx.execute(query).first() is not None for query in found)


def unpark(tx: Transaction, rules: str, n: int) -> None:
    """Return at most `n` manifests to the queue that other rules had parked.

    Their grace period begins now, because requests that confirmed them while the rules retained
    them were not recorded.
    """
    for others in _parked_by_others(rules):
        tx.execute(_update_some(others, n).values(parked_by="", grace_started_at=tx.read_clock()))


def repair_future_times(tx: Transaction, latest: int, n: int) -> None:
    """Restart the grace period of at most `n` candidates for which it begins after `latest`.

    The clock was wrong when they were queued.
    """
    tx.execute(_update_some(_is_ahead(latest), n).values(grace_started_at=tx.read_clock()))


def _parked_by_others(rules: str) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    """Return two index ranges, because an inequality would read the whole index."""
    return sa.and_(_c.parked_by > "", _c.parked_by < rules), _c.parked_by > rules


def _is_ahead(latest: int) -> sa.ColumnElement[bool]:
    return sa.and_(_c.parked_by == "", _c.grace_started_at > latest)


def _update_some(which: sa.ColumnElement[bool], n: int) -> sa.Update:
    key = gc_queue.primary_key.columns.values()
    some = sa.select(*key).where(which).limit(n)
    return sa.update(gc_queue).where(sa.tuple_(*key).in_(some))


def count(tx: Transaction) -> dict[CandidateKind, int]:
    """Return the number of candidates in the queue, by kind."""
    query = sa.select(_c.kind, sa.func.count()).where(_c.parked_by == "").group_by(_c.kind)
    found = {CandidateKind(kind): int(number) for kind, number in tx.execute(query)}
    return {kind: found.get(kind, 0) for kind in CandidateKind}


def find_next(tx: Transaction, until: int) -> tuple[int, int | None]:
    """Return the number of candidates whose grace period began after `until`, and its first start.

    Times are in microseconds.
    """
    query = sa.select(sa.func.count(), sa.func.min(_c.grace_started_at))
    count, first = tx.execute(query.where(_c.parked_by == "", _c.grace_started_at > until)).one()
    return count, first


def count_parked(tx: Transaction) -> int:
    """Return the number of untagged manifests that only the rules retain."""
    kept = retainers.is_retained(CandidateKind.MANIFEST, _c.repository_id, _c.digest)
    query = sa.select(sa.func.count()).where(
        _c.parked_by > "", _is_present(CandidateKind.MANIFEST), sa.not_(kept)
    )
    return int(tx.execute(query).scalar_one())
