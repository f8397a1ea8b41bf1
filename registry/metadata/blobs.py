"""Rows of blobs, and the links that make a blob visible in a repository."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from registry.metadata import candidates, tallies
from registry.metadata.repositories import RepositoryRow
from registry.metadata.repositories import find as find_repository
from registry.metadata.tables import (
    blobs,
    manifest_edges,
    manifests,
    repositories,
    repository_blobs,
)
from registry.metadata.transaction import NOWHERE, Change, Kind, Transaction, in_chunks
from registry.oci.names import RepositoryName
from storage.digest import Digest

_b, _l, _e = blobs.c, repository_blobs.c, manifest_edges.c


class BlobState(StrEnum):
    """What is known of a blob's bytes."""

    LIVE = "live"
    # Absent or of the wrong length when last looked for; live again once they are back.
    MISSING = "missing"
    # They could not be read to the end; only another push heals them.
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class BlobRow:
    """A blob: `size` in bytes, under `key` of the store called `store`. `linked_at`: when it was
    linked in the repository that it was found in, in microseconds.
    """

    digest: Digest
    size: int
    store: str
    key: str
    state: BlobState
    linked_at: int = field(default=0, compare=False)


_COLUMNS = (_b.digest, _b.size, _b.store, _b.key, _b.state)


def _row(row: sa.Row[*tuple[Any, ...]] | None) -> BlobRow | None:
    return _made(row) if row else None


def _rows(tx: Transaction, query: sa.Select[*tuple[Any, ...]]) -> list[BlobRow]:
    return [_made(row) for row in tx.execute(query)]


def _made(row: sa.Row[*tuple[Any, ...]]) -> BlobRow:
    return BlobRow(row[0], row[1], row[2], row[3], BlobState(row[4]), *row[5:6])


def find(tx: Transaction, name: RepositoryName, digest: Digest) -> BlobRow | None:
    """The blob, if it is linked in the repository."""
    query = (
        sa.select(*_COLUMNS, _l.linked_at)
        .join(repository_blobs, _l.digest == _b.digest)
        .join(repositories, repositories.c.id == _l.repository_id)
        .where(repositories.c.name == name, _b.digest == digest)
    )
    return _row(tx.execute(query).one_or_none())


def find_promised(
    tx: Transaction, name: RepositoryName, digest: Digest
) -> tuple[BlobRow, bool] | None:
    """As `find`, and whether `touch` is needed before anybody is told that the blob is here."""
    stale = candidates.is_stale(tx, Kind.LINK, _l.repository_id, _l.digest)
    query = (
        sa.select(*_COLUMNS, _l.linked_at, stale)
        .join(repository_blobs, _l.digest == _b.digest)
        .join(repositories, repositories.c.id == _l.repository_id)
        .where(repositories.c.name == name, _b.digest == digest)
    )
    row = tx.execute(query).one_or_none()
    found = _row(row)
    return (found, bool(row[-1])) if found and row else None


def touch(tx: Transaction, name: RepositoryName, digest: Digest, ahead: float) -> bool:
    """Keep the blob in the repository for a grace; the next `ahead` seconds need no other touch.
    False: it is there no more.
    """
    repository = find_repository(tx, name)
    if repository is not None:
        candidates.touch(tx, Kind.LINK, repository.id, digest, ahead)
    # What is no candidate any more is kept by a manifest, or has gone.
    return find(tx, name, digest) is not None


def find_anywhere(tx: Transaction, digest: Digest, *, keep: bool = False) -> BlobRow | None:
    """The blob, wherever it is linked. `keep` holds it against removal."""
    query = sa.select(*_COLUMNS).where(_b.digest == digest)
    if keep:
        query = query.with_for_update(read=True, key_share=True)
    return _row(tx.execute(query).one_or_none())


def list_repositories(
    tx: Transaction, digest: Digest, n: int, among: Collection[RepositoryName] | None = None
) -> list[RepositoryName]:
    """At most `n` repositories, of those `among` or of all, that link the blob, in no order: an
    order would take longer the more there are.
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
    """Insert the row, or point an existing one at new bytes."""
    insert = tx.insert(blobs).values(
        digest=blob.digest,
        size=blob.size,
        store=blob.store,
        key=blob.key,
        state=blob.state.value,
        created_at=tx.now,
        touched_at=tx.now,
    )
    tx.execute(
        insert.on_conflict_do_update(
            index_elements=[_b.digest],
            set_={
                "size": insert.excluded.size,
                "store": insert.excluded.store,
                "key": insert.excluded.key,
                "state": insert.excluded.state,
                "touched_at": insert.excluded.touched_at,
            },
        )
    )


def lock(tx: Transaction, digest: Digest) -> BlobRow | None:
    """The blob, locked against every change, its birth included, until the transaction ends."""
    query = sa.select(*_COLUMNS).where(_b.digest == digest).with_for_update()
    found = _row(tx.execute(query).one_or_none())
    if found is None:
        # Without this, of two that find none the second would overwrite the first one's key.
        tx.lock_name(str(digest))
        found = _row(tx.execute(query).one_or_none())
    return found


def lock_idle(tx: Transaction, digests: Collection[Digest]) -> list[BlobRow]:
    """Those of the blobs that nobody else holds now, locked as by `lock`, in order of digests."""
    query = sa.select(*_COLUMNS).where(_b.digest.in_(digests)).order_by(_b.digest)
    found = tx.execute(query.with_for_update(skip_locked=True))
    return [row for row in map(_row, found) if row is not None]


def delete(tx: Transaction, digests: Collection[Digest]) -> None:
    """Remove blobs that no repository links, locked by the caller."""
    tx.execute(sa.delete(blobs).where(_b.digest.in_(digests)))


def measure_each(tx: Transaction, digests: Collection[Digest]) -> dict[Digest, int]:
    """The sizes of those of the blobs that there are, in bytes."""
    query = sa.select(_b.digest, _b.size).where(_b.digest.in_(digests))
    return {row.digest: row.size for row in tx.execute(query)}


def set_state(tx: Transaction, blob: BlobRow, state: BlobState) -> bool:
    """Set the state, unless the row has another key or state by now; whether it did."""
    query = sa.update(blobs).where(
        _b.digest == blob.digest, _b.key == blob.key, _b.state == blob.state.value
    )
    return tx.execute(query.values(state=state.value)).rowcount > 0


def list_stores(tx: Transaction) -> list[str]:
    """The names of all stores that hold blobs, each found by one step in the index."""
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
    """At most `n` blobs of the store, after digest `last`, in order of digests."""
    query = sa.select(*_COLUMNS).where(_b.store == store)
    if last is not None:
        query = query.where(_b.digest > last)
    return _rows(tx, query.order_by(_b.digest).limit(n))


def list_after(tx: Transaction, last: Digest | None, n: int) -> list[BlobRow]:
    """At most `n` blobs of all stores, after digest `last`, in order of digests."""
    query = sa.select(*_COLUMNS).order_by(_b.digest).limit(n)
    return _rows(tx, query if last is None else query.where(_b.digest > last))


def list_keyed(tx: Transaction, store: str, last: str, upto: str | None, n: int) -> list[BlobRow]:
    """At most `n` blobs of the store whose keys are after `last` and not after `upto`, by key."""
    query = sa.select(*_COLUMNS).where(_b.store == store, _b.key > last)
    if upto is not None:
        query = query.where(_b.key <= upto)
    return _rows(tx, query.order_by(_b.key).limit(n))


def list_in_state(tx: Transaction, state: BlobState, last: Digest | None, n: int) -> list[BlobRow]:
    """At most `n` blobs of which that is known, after digest `last`, in order of digests."""
    query = sa.select(*_COLUMNS).where(_b.state == state.value)
    if last is not None:
        query = query.where(_b.digest > last)
    return _rows(tx, query.order_by(_b.digest).limit(n))


def measure(tx: Transaction, store: str | None = None) -> tuple[int, int]:
    """How many blobs the store holds, or all do, and their bytes."""
    query = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(_b.size), 0))
    if store is not None:
        query = query.where(_b.store == store)
    count, size = tx.execute(query).one()
    return int(count), int(size)


def count_not_live(tx: Transaction) -> int:
    # Not `!=`, which reads the whole index.
    query = sa.select(sa.func.count()).where(
        _b.state.in_([state.value for state in BlobState if state is not BlobState.LIVE])
    )
    return int(tx.execute(query).scalar_one())


def link(tx: Transaction, repository: RepositoryRow, digest: Digest) -> None:
    """Make the blob visible in the repository, also for manifests that waited for it."""
    here = sa.and_(_l.repository_id == repository.id, _l.digest == digest)
    held = sa.select(_l.digest).where(here).with_for_update(read=True, key_share=True)
    insert = (
        tx.insert(repository_blobs)
        .values(repository_id=repository.id, digest=digest, linked_at=tx.now)
        .on_conflict_do_nothing(index_elements=[_l.repository_id, _l.digest])
        .returning(_l.digest)
    )
    tx.queue((repository.id, Kind.LINK, digest))
    while tx.execute(insert).first() is None:
        # A link that is there is held; one that was on its way out when we came is made again.
        if tx.execute(held).first() is not None:
            return
    tallies.add(tx, repository.id, digest)
    tx.record(Change.BLOB_LINK, repository.name, repository.generation, digest=digest)
    tx.execute(
        sa.update(manifest_edges)
        .where(
            _e.repository_id == repository.id,
            _e.digest == digest,
            _e.blob_digest.is_(None),
            _e.child_digest.is_(None),
        )
        .values(blob_digest=digest)
    )


def unlink(
    tx: Transaction, repository: RepositoryRow, graces: Mapping[Digest, int | None]
) -> set[Digest]:
    """Take blobs out of the repository (locked by the caller); those that were in it. With each:
    when the grace of the blob itself began, if that is not now.
    """
    here = sa.and_(_l.repository_id == repository.id, _l.digest.in_(graces))
    gone = set(tx.execute(sa.delete(repository_blobs).where(here).returning(_l.digest)).scalars())
    tallies.remove(tx, repository.id, gone)
    for digest in sorted(gone):
        tx.queue((NOWHERE, Kind.BLOB, digest), graces[digest])
        tx.record(Change.BLOB_UNLINK, repository.name, repository.generation, digest=digest)
    return gone


def list_users(tx: Transaction, repository: RepositoryRow, digest: Digest) -> list[Digest]:
    """At most 20 manifests of the repository that use the blob."""
    query = (
        sa.select(manifests.c.digest)
        .join(manifest_edges, _e.manifest_id == manifests.c.id)
        .where(_e.repository_id == repository.id, _e.blob_digest == digest)
        .distinct()
        .order_by(manifests.c.digest)
        .limit(20)
    )
    return list(tx.execute(query).scalars())


def list_linked(
    tx: Transaction, repository: RepositoryRow, digests: list[Digest]
) -> dict[Digest, BlobState]:
    """Those of `digests` that are linked in the repository, held against unlinking.

    Locked in digest order: two transactions that lock the same rows in two orders deadlock.
    """
    found: dict[Digest, BlobState] = {}
    for chunk in in_chunks(digests):
        query = (
            sa.select(_l.digest, _b.state)
            .join(blobs, _b.digest == _l.digest)
            .where(_l.repository_id == repository.id, _l.digest.in_(chunk))
            .order_by(_l.digest)
            .with_for_update(read=True, key_share=True, of=repository_blobs)
        )
        found.update((digest, BlobState(state)) for digest, state in tx.execute(query))
    return found
