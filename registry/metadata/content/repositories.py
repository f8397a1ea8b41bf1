"""Rows of repositories.

A repository is created with its first content and removed with its last.
"""

import itertools
import uuid
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from msgspec import Struct

from registry.metadata.engine.statements import Statement, bind, bind_limit, bind_now, insert_into
from registry.metadata.engine.transaction import (
    CHUNK,
    NO_REPOSITORY,
    CandidateKind,
    Change,
    Transaction,
)
from registry.metadata.protection import holds, removed_manifests
from registry.metadata.quotas import usage_counters
from registry.metadata.tables import (
    TEXT,
    blobs,
    gc_queue,
    manifest_bytes,
    manifest_edges,
    manifests,
    removed_repositories,
    repositories,
    repository_blobs,
    tags,
    unreadable_manifests,
    uploads,
)
from registry.oci.names import RepositoryName

_r = repositories.c
_name = sa.type_coerce(_r.name, TEXT)


class RepositoryRow(Struct, frozen=True):
    """A repository. `created_at` is in microseconds."""

    id: int
    name: RepositoryName
    generation: str
    created_at: int


class NameRange(Struct, frozen=True, order=True):
    """A range of repository names.

    With `exact`, only the name `start`; otherwise all names that begin with `start`, which is empty
    or ends with a slash. With `direct_children_only`, only names without another slash.
    """

    start: str
    exact: bool = False
    direct_children_only: bool = False


EVERYWHERE = NameRange("")


class RepositoryCounts(Struct, frozen=True):
    """Contents of a repository. `bytes` counts each blob and each manifest once."""

    tags: int
    manifests: int
    blobs: int
    bytes: int


_COLUMNS = (_r.id, _r.name, _r.generation, _r.created_at)
_BY_NAME = sa.select(*_COLUMNS).where(_r.name == sa.bindparam("name"))

_FIND = Statement(_BY_NAME)
_FIND_KEPT = Statement(_BY_NAME.with_for_update(read=True, key_share=True))
_FIND_LOCKED = Statement(_BY_NAME.with_for_update())
_IS_CLAIMED = Statement(
    sa.select(
        sa.or_(
            sa.exists().where(_r.name == sa.bindparam("name")),
            sa.exists().where(removed_repositories.c.name == sa.bindparam("name")),
        )
    )
)
_FIND_BY_ID = Statement(sa.select(*_COLUMNS).where(_r.id == sa.bindparam("id")))


def _prepare_create() -> Statement:
    row = insert_into(repositories).values(**bind("name", "generation"), created_at=bind_now())
    # DO UPDATE, not DO NOTHING, to lock and return the row that another transaction inserted.
    changed = row.on_conflict_do_update(index_elements=[_r.name], set_={"name": row.excluded.name})
    return Statement(changed.returning(*_COLUMNS))


def _prepare_list(*where: sa.ColumnElement[bool]) -> Statement:
    return Statement(sa.select(_name).where(*where).order_by(_name).limit(bind_limit()))


def _prepare_region(from_start: bool, has_end: bool, direct_children_only: bool) -> Statement:
    first = sa.bindparam("first", type_=TEXT)
    where = [_name >= first if from_start else _name > first]
    if has_end:
        where.append(_name < sa.bindparam("end", type_=TEXT))
    if direct_children_only:
        rest = sa.bindparam("rest", type_=sa.Integer)
        where.append(sa.func.substr(_name, rest).not_like("%/%"))
    return _prepare_list(*where)


_CREATE = _prepare_create()
_LIST_NAMED = _prepare_list(_name.in_(sa.bindparam("names")))
_LIST_REGION = {form: _prepare_region(*form) for form in itertools.product((False, True), repeat=3)}
_IS_EMPTY = Statement(
    sa.select(
        sa.not_(
            sa.or_(
                *(
                    sa.exists().where(table.c.repository_id == sa.bindparam("id"))
                    for table in (manifests, repository_blobs)
                )
            )
        )
    )
)
_DETACH_SESSIONS = Statement(
    sa.update(uploads)
    .where(uploads.c.repository_generation == sa.bindparam("generation"))
    .values(repository_generation=sa.null())
)


def is_claimed(tx: Transaction, name: RepositoryName) -> bool:
    """Return whether a repository has this name, or had it until some days ago."""
    return bool(tx.fetch_value(_IS_CLAIMED, name=name))


def find(
    tx: Transaction, name: RepositoryName, *, keep: bool = False, lock: bool = False
) -> RepositoryRow | None:
    """Return the repository.

    Until the transaction ends, `keep` locks it against removal, and `lock` locks it against every
    other change of its content as well.
    """
    statement = _FIND
    if lock or keep:
        # With row locks, transactions that share a lock overtake one that waits for it exclusively:
        # under steady pushes a deletion would starve. Advisory locks are granted in order.
        tx.lock_name(f"repository {name}", shared=not lock)
        statement = _FIND_LOCKED if lock else _FIND_KEPT
    row = tx.fetch_one(statement, name=name)
    return RepositoryRow(*row) if row else None


def find_by_id(tx: Transaction, repository_id: int, *, lock: bool = False) -> RepositoryRow | None:
    """Return the repository. `lock` is as in `find`."""
    row = tx.fetch_one(_FIND_BY_ID, id=repository_id)
    found = RepositoryRow(*row) if row else None
    if found is None or not lock:
        return found
    locked = find(tx, found.name, lock=True)
    return locked if locked is not None and locked.id == repository_id else None


def ensure(tx: Transaction, name: RepositoryName, *, lock: bool = False) -> RepositoryRow:
    """Return the repository, created if needed, locked against removal. `lock` is as in `find`.

    A caller that needs `lock` must request it here: two transactions that take the shared lock
    first and the exclusive one later deadlock.
    """
    found = find(tx, name, keep=True, lock=lock)
    if found is not None:
        return found
    generation = uuid.uuid4().hex
    (row,) = tx.fetch_all(_CREATE, name=name, generation=generation)
    repository = RepositoryRow(*row)
    if repository.generation == generation:
        usage_counters.track_new(tx, repository.id, name)
        tx.record_change(Change.REPOSITORY_CREATE, name, generation)
    return repository


def list_names(
    tx: Transaction, n: int, last: str, regions: Iterable[NameRange] = (EVERYWHERE,)
) -> list[str]:
    """Return the first `n` names after `last` in any of the regions, in byte order.

    `n` is at least 1. Each region is a range of the index that is read separately, so names between
    the regions cost nothing.
    """
    names: list[str] = []
    ordered = sorted(regions)
    single = [region.start for region in ordered if region.exact and region.start > last]
    for start in range(0, len(single), CHUNK):
        if len(names) < n:
            names += tx.fetch_values(_LIST_NAMED, names=single[start : start + CHUNK], n=n)
    names = names[:n]
    for region in ordered:
        if len(names) == n and region.start > names[-1]:
            break
        if not region.exact:
            names = sorted({*names, *_list_region(tx, region, n, last)})[:n]
    return names


def _list_region(tx: Transaction, region: NameRange, n: int, last: str) -> list[str]:
    """Return the first `n` names of the region after `last`."""
    # Only one of the two bounds, because the planner could start at the worse one.
    from_start = region.start > last
    values: dict[str, Any] = {"first": region.start if from_start else last, "n": n}
    if region.start:
        values["end"] = region.start.removesuffix("/") + "0"  # the byte after the slash
    if region.direct_children_only:
        values["rest"] = len(region.start) + 1
    statement = _LIST_REGION[from_start, bool(region.start), region.direct_children_only]
    return tx.fetch_values(statement, **values)


def count(tx: Transaction, repository: RepositoryRow) -> RepositoryCounts:
    def total(table: sa.Table) -> sa.ScalarSelect[int]:
        here = table.c.repository_id == repository.id
        return sa.select(sa.func.count()).select_from(table).where(here).scalar_subquery()

    blob_bytes = (
        sa.select(sa.func.coalesce(sa.func.sum(blobs.c.size), 0))
        .join(repository_blobs, repository_blobs.c.digest == blobs.c.digest)
        .where(repository_blobs.c.repository_id == repository.id)
        .scalar_subquery()
    )
    own_bytes = (
        sa.select(sa.func.coalesce(sa.func.sum(manifests.c.size), 0))
        .where(manifests.c.repository_id == repository.id)
        .scalar_subquery()
    )
    row = tx.execute(
        sa.select(total(tags), total(manifests), total(repository_blobs), blob_bytes + own_bytes)
    ).one()
    return RepositoryCounts(row[0], row[1], row[2], int(row[3]))


def remove_if_empty(tx: Transaction, repository: RepositoryRow) -> None:
    """Remove a repository (locked by the caller) that has neither manifests nor blobs.

    Its upload sessions continue as sessions of a repository that does not exist yet.
    """
    if not tx.fetch_value(_IS_EMPTY, id=repository.id):
        return
    tx.run(_DETACH_SESSIONS, generation=repository.generation)
    _remove(tx, repository)


def _queue_blobs(tx: Transaction, repository: RepositoryRow) -> None:
    """Queue all blobs of the repository, in the database, because there may be many."""
    links = repository_blobs.c
    gone = (
        sa.select(
            sa.literal(NO_REPOSITORY),
            sa.literal(CandidateKind.BLOB.value),
            links.digest,
            tx.read_clock(),
            sa.literal(""),
        )
        .where(links.repository_id == repository.id)
        .order_by(links.digest)
    )
    rows = insert_into(gc_queue).from_select([column.name for column in gc_queue.columns], gone)
    tx.execute(
        rows.on_conflict_do_update(
            index_elements=list(gc_queue.primary_key.columns),
            set_={"grace_started_at": rows.excluded.grace_started_at},
        )
    )


def delete(tx: Transaction, repository: RepositoryRow) -> None:
    """Delete a repository (locked by the caller) with all its content.

    The bytes of its manifests are kept for the grace period. The rows of its upload sessions stay,
    but are no longer found, and the next run of the job expires them, because their clients cannot
    cancel them.
    """
    usage_counters.remove_all(tx, repository.id)
    removed_manifests.keep(tx, repository.id)
    holds.drop_over(tx, repository.id)
    ids = sa.select(manifests.c.id).where(manifests.c.repository_id == repository.id)
    tx.execute(sa.delete(tags).where(tags.c.repository_id == repository.id))
    tx.execute(sa.delete(manifest_edges).where(manifest_edges.c.manifest_id.in_(ids)))
    tx.execute(sa.delete(manifest_bytes).where(manifest_bytes.c.manifest_id.in_(ids)))
    tx.execute(sa.delete(manifests).where(manifests.c.repository_id == repository.id))
    _queue_blobs(tx, repository)
    _expire_sessions(tx, repository)
    tx.execute(sa.delete(repository_blobs).where(repository_blobs.c.repository_id == repository.id))
    _remove(tx, repository)


def _expire_sessions(tx: Transaction, repository: RepositoryRow) -> None:
    mine = sa.select(uploads.c.id).where(
        uploads.c.repository == repository.name,
        uploads.c.repository_generation == repository.generation,
    )
    # A transaction that has locked a session may wait for the repository, so that session is
    # skipped and expires normally.
    free = mine.with_for_update(skip_locked=True)
    tx.execute(sa.update(uploads).where(uploads.c.id.in_(free)).values(active_at=0))


def _remove(tx: Transaction, repository: RepositoryRow) -> None:
    for table in (gc_queue, unreadable_manifests):
        tx.execute(sa.delete(table).where(table.c.repository_id == repository.id))
    for key in [key for key in tx.queued if key[0] == repository.id]:
        del tx.queued[key]
    usage_counters.untrack(tx, repository.id)
    tx.execute(sa.delete(repositories).where(_r.id == repository.id))
    tx.record_change(Change.REPOSITORY_DELETE, repository.name, repository.generation)
    tx.removed_repositories.append(repository.name)
