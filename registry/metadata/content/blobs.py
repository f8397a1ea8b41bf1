"""Rows of blobs, and of the links that make a blob visible in a repository."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from msgspec import Struct

from registry.metadata.content.repositories import RepositoryRow
from registry.metadata.content.repositories import find as find_repository
from registry.metadata.engine.statements import (
    DatabaseClock,
    Row,
    Statement,
    bind,
    bind_now,
    insert_into,
)
from registry.metadata.engine.transaction import (
    NO_REPOSITORY,
    CandidateKind,
    Change,
    Transaction,
    in_chunks,
)
from registry.metadata.gc import queue
from registry.metadata.quotas import usage_counters
from registry.metadata.tables import (
    blobs,
    manifest_edges,
    manifests,
    repositories,
    repository_blobs,
)
from registry.oci.names import RepositoryName
from storage.digest import Digest

_b, _l, _e = blobs.c, repository_blobs.c, manifest_edges.c


class BlobState(StrEnum):
    """The known state of a blob's bytes."""

    LIVE = "live"
    # Absent or of the wrong length when last checked. Becomes live once the bytes are back.
    MISSING = "missing"
    # The bytes could not be read to the end. Only another push repairs the blob.
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class BlobRow:
    """A blob of `size` bytes, stored under `key` in `store`.

    `linked_at` is the time, in microseconds, at which it was linked to the repository of the query.
    """

    digest: Digest
    size: int
    store: str
    key: str
    state: BlobState
    linked_at: int = field(default=0, compare=False)


class PromisedBlob(Struct, frozen=True):
    """A blob that a response may confirm until a time, in microseconds by the database's clock.

    Later, and thus at once if `until` is 0, it must be touched before.
    """

    row: BlobRow
    until: float


_COLUMNS = (_b.digest, _b.size, _b.store, _b.key, _b.state)


def _row(row: sa.Row[*tuple[Any, ...]] | Row | None) -> BlobRow | None:
    return _made(row) if row else None


def _rows(tx: Transaction, query: sa.Select[*tuple[Any, ...]]) -> list[BlobRow]:
    return [_made(row) for row in tx.execute(query)]


def _made(row: sa.Row[*tuple[Any, ...]] | Row) -> BlobRow:
    return BlobRow(row[0], row[1], row[2], row[3], BlobState(row[4]), *row[5:6])


def _prepare_find(*more: sa.ColumnElement[Any]) -> Statement:
    return Statement(
        sa.select(*_COLUMNS, _l.linked_at, *more)
        .join(repository_blobs, _l.digest == _b.digest)
        .join(repositories, repositories.c.id == _l.repository_id)
        .where(repositories.c.name == sa.bindparam("name"))
        .where(_b.digest == sa.bindparam("digest"))
    )


def _prepare_put() -> Statement:
    columns = ("digest", *_REPLACED)
    rows = insert_into(blobs).values(**bind(*columns), created_at=bind_now())
    changed = {name: rows.excluded[name] for name in _REPLACED}
    return Statement(rows.on_conflict_do_update(index_elements=[_b.digest], set_=changed))


_REPLACED = ("size", "store", "key", "state")
_BY_DIGEST = sa.select(*_COLUMNS).where(_b.digest == sa.bindparam("digest"))
_FIND_ANYWHERE = Statement(_BY_DIGEST)
_FIND_KEPT = Statement(_BY_DIGEST.with_for_update(read=True, key_share=True))
_FIND_LOCKED = Statement(_BY_DIGEST.with_for_update())
_PUT = _prepare_put()
_INSERT_NEW = Statement(
    insert_into(blobs)
    .values(**bind("digest", *_REPLACED), created_at=bind_now())
    .on_conflict_do_nothing(index_elements=[_b.digest])
    .returning(_b.digest)
)
_LINK = Statement(
    insert_into(repository_blobs)
    .values(**bind("repository_id", "digest"), linked_at=bind_now())
    .on_conflict_do_nothing(index_elements=[_l.repository_id, _l.digest])
    .returning(_l.digest)
)
_HOLD_LINK = Statement(
    sa.select(_l.digest)
    .where(_l.repository_id == sa.bindparam("repository"), _l.digest == sa.bindparam("digest"))
    .with_for_update(read=True, key_share=True)
)
_RESOLVE_EDGES = Statement(
    sa.update(manifest_edges)
    .where(
        _e.repository_id == sa.bindparam("repository"),
        _e.digest == sa.bindparam("waiting", type_=_e.digest.type),
        _e.blob_digest.is_(None),
        _e.child_digest.is_(None),
    )
    .values(bind("blob_digest"))
)
_FIND = _prepare_find()
_FIND_PROMISED = _prepare_find(
    queue.find_grace_start(CandidateKind.LINK, _l.repository_id, _l.digest), DatabaseClock()
)
_LIST_LINKED = Statement(
    sa.select(_l.digest, _b.state)
    .join(blobs, _b.digest == _l.digest)
    .where(_l.repository_id == sa.bindparam("repository"))
    .where(_l.digest.in_(sa.bindparam("digests")))
    .order_by(_l.digest)
    .with_for_update(read=True, key_share=True, of=repository_blobs)
)
_UNLINK = Statement(
    sa.delete(repository_blobs)
    .where(_l.repository_id == sa.bindparam("repository"))
    .where(_l.digest.in_(sa.bindparam("digests")))
    .returning(_l.digest)
)
_LIST_MANIFESTS_USING = Statement(
    sa.select(manifests.c.digest)
    .join(manifest_edges, _e.manifest_id == manifests.c.id)
    .where(_e.repository_id == sa.bindparam("repository"))
    .where(_e.blob_digest == sa.bindparam("digest"))
    .distinct()
    .order_by(manifests.c.digest)
    .limit(20)
)


def find(tx: Transaction, name: RepositoryName, digest: Digest) -> BlobRow | None:
    """Return the blob if it is linked to the repository."""
    return _row(tx.fetch_one(_FIND, name=name, digest=digest))


def find_promised(tx: Transaction, name: RepositoryName, digest: Digest) -> PromisedBlob | None:
    """Return the blob as in `find`, and whether it needs a `touch`."""
    row = tx.fetch_one(_FIND_PROMISED, name=name, digest=digest)
    if row is None:
        return None
    *_, grace_start, now = row
    until = math.inf if grace_start is None else grace_start
    return PromisedBlob(_made(row), until if until >= now else 0)


def touch(tx: Transaction, name: RepositoryName, digest: Digest, extend_by: float) -> bool:
    """Restart the grace period of the blob's link. Returns False if the link no longer exists.

    For the next `extend_by` seconds no other `touch` is needed.
    """
    repository = find_repository(tx, name)
    if repository is not None:
        queue.touch(tx, CandidateKind.LINK, repository.id, digest, extend_by)
    # If it is no longer a candidate, a manifest uses it or it was removed.
    return find(tx, name, digest) is not None


def find_anywhere(tx: Transaction, digest: Digest, *, keep: bool = False) -> BlobRow | None:
    """Return the blob, whichever repositories link it. `keep` locks it against removal."""
    return _row(tx.fetch_one(_FIND_KEPT if keep else _FIND_ANYWHERE, digest=digest))


def list_repositories(
    tx: Transaction, digest: Digest, n: int, among: Collection[RepositoryName] | None = None
) -> list[RepositoryName]:
    """Return at most `n` repositories that link the blob, in no order.

    `among` restricts the search to these repositories. Sorting would take longer the more links
    there are.
    """
    query = (
        sa.select(repositories.c.name)
        .join(repository_blobs, _l.repository_id == repositories.c.id)
        .where(_l.digest == digest)
        .limit(n)
    )
    if among is not None:
        query = query.where(repositories.c.name.in_(among))
    return list(tx.execute(query).scalars())


def put(tx: Transaction, blob: BlobRow) -> None:
    """Insert the row, or point an existing row, which the caller has locked, at new bytes."""
    tx.run(_PUT, **_values(blob))


def insert_new(tx: Transaction, blob: BlobRow) -> bool:
    """Insert the row, locked as by `lock`. Returns False if the blob has a row already.

    Waits for a concurrent transaction that inserts the same row.
    """
    return tx.fetch_one(_INSERT_NEW, **_values(blob)) is not None


def _values(blob: BlobRow) -> dict[str, Any]:
    values = {name: getattr(blob, name) for name in ("digest", *_REPLACED)}
    return {**values, "state": blob.state.value}


def lock(tx: Transaction, digest: Digest) -> BlobRow | None:
    """Return the blob, locked against every change until the transaction ends."""
    return _row(tx.fetch_one(_FIND_LOCKED, digest=digest))


def lock_available(tx: Transaction, digests: Collection[Digest]) -> list[BlobRow]:
    """Return those of the blobs that no other transaction locks, locked as by `lock`, by digest."""
    query = sa.select(*_COLUMNS).where(_b.digest.in_(digests)).order_by(_b.digest)
    found = tx.execute(query.with_for_update(skip_locked=True))
    return [row for row in map(_row, found) if row is not None]


def delete(tx: Transaction, digests: Collection[Digest]) -> None:
    """Delete blobs that no repository links. The caller has locked them."""
    tx.execute(sa.delete(blobs).where(_b.digest.in_(digests)))


def measure_each(tx: Transaction, digests: Collection[Digest]) -> dict[Digest, int]:
    """Return the size in bytes of each of the blobs that exists."""
    query = sa.select(_b.digest, _b.size).where(_b.digest.in_(digests))
    return {row.digest: row.size for row in tx.execute(query)}


def set_state(tx: Transaction, blob: BlobRow, state: BlobState) -> bool:
    """Set the state and return True, unless the row's key or state has changed since the read."""
    query = sa.update(blobs).where(
        _b.digest == blob.digest, _b.key == blob.key, _b.state == blob.state.value
    )
    return tx.execute(query.values(state=state.value)).rowcount > 0


def list_stores(tx: Transaction) -> list[str]:
    """Return the names of all stores that have blobs, with one index step for each store."""
    found: list[str] = []
    while True:
        query = sa.select(sa.func.min(_b.store))
        if found:
            query = query.where(_b.store > found[-1])
        name = tx.execute(query).scalar_one()
        if name is None:
            return found
        found.append(name)


def list_in(tx: Transaction, store: str, last: Digest | None, n: int) -> list[BlobRow]:
    """Return at most `n` blobs of the store after the digest `last`, in digest order."""
    query = sa.select(*_COLUMNS).where(_b.store == store)
    if last is not None:
        query = query.where(_b.digest > last)
    return _rows(tx, query.order_by(_b.digest).limit(n))


def list_after(tx: Transaction, last: Digest | None, n: int) -> list[BlobRow]:
    """Return at most `n` blobs of all stores after the digest `last`, in digest order."""
    query = sa.select(*_COLUMNS).order_by(_b.digest).limit(n)
    return _rows(tx, query if last is None else query.where(_b.digest > last))


def list_by_key(tx: Transaction, store: str, last: str, upto: str | None, n: int) -> list[BlobRow]:
    """Return at most `n` blobs of the store with keys after `last` and up to `upto`, by key."""
    query = sa.select(*_COLUMNS).where(_b.store == store, _b.key > last)
    if upto is not None:
        query = query.where(_b.key <= upto)
    return _rows(tx, query.order_by(_b.key).limit(n))


def list_in_state(tx: Transaction, state: BlobState, last: Digest | None, n: int) -> list[BlobRow]:
    """Return at most `n` blobs in this state after the digest `last`, in digest order."""
    query = sa.select(*_COLUMNS).where(_b.state == state.value)
    if last is not None:
        query = query.where(_b.digest > last)
    return _rows(tx, query.order_by(_b.digest).limit(n))


def measure(tx: Transaction, store: str | None = None) -> tuple[int, int]:
    """Return the number of blobs and their bytes, of one store or of all."""
    query = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(_b.size), 0))
    if store is not None:
        query = query.where(_b.store == store)
    count, size = tx.execute(query).one()
    return int(count), int(size)


def count_not_live(tx: Transaction) -> int:
    # Not `!=`, which would read the whole index.
    query = sa.select(sa.func.count()).where(
        _b.state.in_([state.value for state in BlobState if state is not BlobState.LIVE])
    )
    return int(tx.execute(query).scalar_one())


def link(tx: Transaction, repository: RepositoryRow, digest: Digest) -> None:
    """Link the blob to the repository, and resolve manifest edges that waited for it."""
    tx.queue_for_gc((repository.id, CandidateKind.LINK, digest))
    while tx.fetch_one(_LINK, repository_id=repository.id, digest=digest) is None:
        # An existing link is locked. If a concurrent transaction deleted it, insert it again.
        if tx.fetch_one(_HOLD_LINK, repository=repository.id, digest=digest) is not None:
            return
    usage_counters.add(tx, repository.id, digest)
    tx.record_change(Change.BLOB_LINK, repository.name, repository.generation, digest=digest)
    tx.run(_RESOLVE_EDGES, repository=repository.id, waiting=digest, blob_digest=digest)


def unlink(
    tx: Transaction, repository: RepositoryRow, graces: Mapping[Digest, int | None]
) -> set[Digest]:
    """Unlink blobs from the repository and return those that were linked.

    The caller has locked the repository. Each blob is queued for garbage collection. `graces` has
    the start of its grace period in microseconds, or None for now.
    """
    gone = set(tx.fetch_values(_UNLINK, repository=repository.id, digests=graces))
    usage_counters.remove(tx, repository.id, gone)
    for digest in sorted(gone):
        tx.queue_for_gc((NO_REPOSITORY, CandidateKind.BLOB, digest), graces[digest])
        tx.record_change(Change.BLOB_UNLINK, repository.name, repository.generation, digest=digest)
    return gone


def list_manifests_using(
    tx: Transaction, repository: RepositoryRow, digest: Digest
) -> list[Digest]:
    """Return at most 20 manifests of the repository that use the blob."""
    return tx.fetch_values(_LIST_MANIFESTS_USING, repository=repository.id, digest=digest)


def list_linked(
    tx: Transaction, repository: RepositoryRow, digests: list[Digest]
) -> dict[Digest, BlobState]:
    """Return those of `digests` that are linked to the repository, locked against unlinking.

    They are locked in digest order: two transactions that lock the same rows in different orders
    deadlock.
    """
    found: dict[Digest, BlobState] = {}
    for chunk in in_chunks(digests):
        rows = tx.fetch_all(_LIST_LINKED, repository=repository.id, digests=chunk)
        found.update((digest, BlobState(state)) for digest, state in rows)
    return found
