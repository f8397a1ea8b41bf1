"""Queries for retention: tags with their last use, and untagged manifests."""

import sqlalchemy as sa
from msgspec import Struct

from registry.metadata.content.repositories import RepositoryRow
from registry.metadata.engine.transaction import Change, Transaction, in_chunks
from registry.metadata.tables import (
    TEXT,
    change_feed,
    change_feed_revision,
    manifest_edges,
    manifests,
    pull_times,
    tags,
)
from registry.oci.names import RepositoryName
from storage.digest import Digest

_t, _m, _e, _p, _f = tags.c, manifests.c, manifest_edges.c, pull_times.c, change_feed.c

PAGE_SIZE = 1000


class TagUse(Struct, frozen=True):
    """The last push and pull of a tag.

    `pulled_at` is the last pull of its manifest by this tag or by digest. Times are in
    microseconds; an unknown pull is None.
    """

    name: str
    digest: Digest
    pushed_at: int
    pulled_at: int | None


class UntaggedManifest(Struct, frozen=True):
    """An untagged manifest: without a tag, a parent index or an existing subject.

    `loose_at` is the time of its push or of the loss of its last tag, whichever is later.
    """

    digest: Digest
    untagged_at: int
    pulled_at: int | None


def read_now(tx: Transaction) -> int:
    """Return the database's time in microseconds."""
    return int(tx.execute(sa.select(tx.read_clock())).scalar_one())


def read_head(tx: Transaction) -> int:
    """Return the number of the last change in the feed."""
    return int(tx.execute(sa.select(change_feed_revision.c.revision)).scalar_one())


def list_deleted_tags(tx: Transaction, name: RepositoryName, after: int) -> set[str]:
    """Return the tags of the repository that were deleted after the change `after`."""
    query = sa.select(_f.tag).where(
        _f.revision > after, _f.repository == name, _f.kind == Change.TAG_DELETE.value
    )
    return set(tx.execute(query).scalars())


def _tag_uses(repository: RepositoryRow) -> sa.Select[tuple[str, Digest, int, int | None]]:
    by_tag, by_digest = pull_times.alias(), pull_times.alias()
    here = sa.and_(_m.repository_id == _t.repository_id, _m.digest == _t.digest)
    return (
        sa.select(_t.name, _t.digest, _t.updated_at, _later(by_tag, by_digest))
        .join(manifests, here)
        .outerjoin(by_tag, sa.and_(by_tag.c.manifest_id == _m.id, by_tag.c.tag == _t.name))
        .outerjoin(by_digest, sa.and_(by_digest.c.manifest_id == _m.id, by_digest.c.tag == ""))
        .where(_t.repository_id == repository.id)
    )


def _later(one: sa.FromClause, other: sa.FromClause) -> sa.ColumnElement[int | None]:
    first, second = one.c.pulled_at, other.c.pulled_at
    return sa.case((first > second, first), else_=sa.func.coalesce(second, first))


def find_tag(tx: Transaction, repository: RepositoryRow, tag: str) -> TagUse | None:
    row = tx.execute(_tag_uses(repository).where(_t.name == tag)).one_or_none()
    return TagUse(*row) if row else None


def list_tags(tx: Transaction, repository: RepositoryRow) -> list[TagUse]:
    """Return all tags, in byte order."""
    found: list[TagUse] = []
    more = True
    while more:
        last = found[-1].name if found else ""
        query = _tag_uses(repository).where(_t.name > last).order_by(_t.name).limit(PAGE_SIZE)
        some = [TagUse(*row) for row in tx.execute(query)]
        found += some
        more = len(some) == PAGE_SIZE
    return found


def _is_held() -> sa.ColumnElement[bool]:
    """Return the condition that a tag, an index or a subject retains the manifest of the row."""
    subjects = manifests.alias()
    tagged = sa.exists().where(_t.repository_id == _m.repository_id, _t.digest == _m.digest)
    named = sa.exists().where(_e.repository_id == _m.repository_id, _e.child_digest == _m.digest)
    refers = sa.exists().where(
        subjects.c.repository_id == _m.repository_id, subjects.c.digest == _m.subject
    )
    return sa.or_(tagged, named, refers)


def list_untagged(tx: Transaction, repository: RepositoryRow) -> list[UntaggedManifest]:
    """Return all untagged manifests, in digest order."""
    since = _read_start(tx)
    found: list[UntaggedManifest] = []
    last, more = "", True
    while more:
        # All manifests are read in pages, so that no statement takes long.
        query = (
            sa.select(_m.id, _m.digest, _m.pushed_at, _is_held())
            .where(_m.repository_id == repository.id, sa.type_coerce(_m.digest, TEXT) > last)
            .order_by(_m.digest)
            .limit(PAGE_SIZE)
        )
        some = list(tx.execute(query))
        pushed = {digest: (row_id, at) for row_id, digest, at, held in some if not held}
        found += _look(tx, repository, pushed, since)
        more = len(some) == PAGE_SIZE
        last = str(some[-1][1]) if some else last
    return found


def find_untagged(
    tx: Transaction, repository: RepositoryRow, digest: Digest
) -> UntaggedManifest | None:
    """Return the manifest if it is untagged."""
    query = sa.select(_m.id, _m.pushed_at).where(
        _m.repository_id == repository.id, _m.digest == digest, ~_is_held()
    )
    row = tx.execute(query).one_or_none()
    if row is None:
        return None
    return _look(tx, repository, {digest: (row[0], row[1])}, _read_start(tx))[0]


def _read_start(tx: Transaction) -> int:
    """Return the time of the feed's oldest change, in microseconds; 0 if none were deleted."""
    first = sa.select(_f.revision, _f.at).where(_f.revision > 0).order_by(_f.revision).limit(1)
    row = tx.execute(first).one_or_none()
    return 0 if row is None or row[0] == 1 else int(row[1])


def _look(
    tx: Transaction, repository: RepositoryRow, pushed: dict[Digest, tuple[int, int]], since: int
) -> list[UntaggedManifest]:
    """Return when the manifests lost their last tag, and when they were last pulled.

    Events before `since` are unknown, so they may have happened as late as `since`.
    """
    left: dict[Digest, int] = {}
    pulled: dict[int, int] = {}
    for chunk in in_chunks(pushed):
        gone = (
            sa.select(_f.old_digest, sa.func.max(_f.at))
            .where(_f.repository == repository.name, _f.old_digest.in_(chunk))
            .where(_f.generation == repository.generation)
            .group_by(_f.old_digest)
        )
        left.update((digest, at) for digest, at in tx.execute(gone))
        used = (
            sa.select(_p.manifest_id, sa.func.max(_p.pulled_at))
            .where(_p.manifest_id.in_([pushed[digest][0] for digest in chunk]))
            .group_by(_p.manifest_id)
        )
        pulled.update((row_id, at) for row_id, at in tx.execute(used))
    return [
        UntaggedManifest(digest, max(at, left.get(digest, since)), pulled.get(row_id))
        for digest, (row_id, at) in sorted(pushed.items())
    ]
