"""Storage usage, computed by the database from all links, without blocking writers.

Sizes are those of blobs. A repository, tag or namespace counts each of its blobs once. The bytes of
a blob are exclusive to it if no other one has the blob.
"""

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa
from msgspec import Struct

from registry.metadata.engine.transaction import Transaction
from registry.metadata.protection import holds
from registry.metadata.tables import (
    TEXT,
    blobs,
    manifest_edges,
    manifests,
    repositories,
    repository_blobs,
    tags,
)
from registry.oci.names import RepositoryName
from registry.oci.references import Tag

_b, _l, _r = blobs.c, repository_blobs.c, repositories.c
_m, _e, _t = manifests.c, manifest_edges.c, tags.c


class UsageShare(Struct, frozen=True):
    """Bytes of a repository, a tag or a namespace."""

    name: str
    bytes: int
    exclusive: int


class StorageTotals(Struct, frozen=True):
    """Totals of the stored content, in bytes. `unlinked_bytes` are blobs without a repository."""

    blobs: int
    bytes: int
    unlinked_bytes: int
    manifests: int
    manifest_bytes: int


class Reclaimable(Struct, frozen=True):
    """Content that a deletion would free."""

    manifests: int
    manifest_bytes: int
    blobs: int
    bytes: int


def _total(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return sa.func.coalesce(sa.func.sum(column), 0)


def measure(tx: Transaction) -> StorageTotals:
    """Return the totals of all stored content."""
    count, size = tx.execute(sa.select(sa.func.count(), _total(_b.size)).select_from(blobs)).one()
    linked = sa.select(_l.digest).where(_l.digest == _b.digest).exists()
    unlinked = tx.execute(sa.select(_total(_b.size)).where(~linked)).scalar_one()
    raw = sa.select(sa.func.count(), _total(_m.size)).select_from(manifests)
    number, own = tx.execute(raw).one()
    return StorageTotals(count, int(size), int(unlinked), number, int(own))


def list_repositories(tx: Transaction, n: int) -> list[UsageShare]:
    """Return the `n` repositories with the most bytes."""
    held = sa.select(sa.type_coerce(_r.name, TEXT).label("name"), _l.digest)
    return _share(tx, held.join(repository_blobs, _l.repository_id == _r.id), n)


def list_namespaces(tx: Transaction, n: int) -> list[UsageShare]:
    """Return the `n` namespaces with the most bytes.

    A namespace is the first part of a name; it is empty for names of a single part.
    """
    name = sa.type_coerce(_r.name, TEXT)
    find = sa.func.strpos if tx.connection.dialect.name == "postgresql" else sa.func.instr
    slash = find(name, "/")
    # A name without a slash gets the length 0, because -1 would count from the end.
    first = sa.func.substr(name, 1, sa.case((slash > 0, slash - 1), else_=0)).label("name")
    held = sa.select(first, _l.digest).join(repository_blobs, _l.repository_id == _r.id)
    return _share(tx, held.distinct(), n)


def _share(tx: Transaction, held: sa.Select[Any], n: int) -> list[UsageShare]:
    """Return usage shares from distinct pairs of a holder's `name` and a blob's `digest`."""
    pairs = held.subquery()
    holders = sa.func.count().over(partition_by=pairs.c.digest).label("holders")
    counted = sa.select(pairs.c.name, pairs.c.digest, holders).subquery()
    size = _total(_b.size)
    query = (
        sa.select(counted.c.name, size, _total(sa.case((counted.c.holders == 1, _b.size), else_=0)))
        .join(blobs, _b.digest == counted.c.digest)
        .group_by(counted.c.name)
        .order_by(size.desc(), counted.c.name)
        .limit(n)
    )
    return [UsageShare(row[0], int(row[1]), int(row[2])) for row in tx.execute(query)]


def list_tags(tx: Transaction, n: int) -> list[UsageShare]:
    """Return the `n` tags with the most bytes.

    A tag includes the children and the referrers of its manifests.
    """
    steps = _steps()
    reach = sa.select(_t.repository_id, _t.name.label("tag"), _t.digest).cte(
        "reach", recursive=True
    )
    further = sa.select(reach.c.repository_id, reach.c.tag, steps.c.child).join(
        steps,
        sa.and_(steps.c.repository_id == reach.c.repository_id, steps.c.parent == reach.c.digest),
    )
    reach = reach.union(further)
    reached = sa.and_(reach.c.repository_id == _m.repository_id, reach.c.digest == _m.digest)
    held = (
        # All manifests without a tag count together as one more holder.
        sa.select(
            _e.repository_id,
            sa.func.coalesce(reach.c.tag, "").label("tag"),
            _e.blob_digest.label("digest"),
        )
        .join(manifests, _m.id == _e.manifest_id)
        .join(reach, reached, isouter=True)
        .where(_e.blob_digest.is_not(None))
        .distinct()
        .subquery()
    )
    holders = sa.func.count().over(partition_by=[held.c.repository_id, held.c.digest])
    counted = sa.select(*held.c, holders.label("holders")).subquery()
    elsewhere = sa.select(_l.digest).where(
        _l.digest == counted.c.digest, _l.repository_id != counted.c.repository_id
    )
    exclusive = sa.case((sa.and_(counted.c.holders == 1, ~elsewhere.exists()), _b.size), else_=0)
    size = _total(_b.size)
    query = (
        sa.select(sa.type_coerce(_r.name, TEXT), counted.c.tag, size, _total(exclusive))
        .join(counted, counted.c.repository_id == _r.id)
        .join(blobs, _b.digest == counted.c.digest)
        .where(counted.c.tag != "")
        .group_by(_r.name, counted.c.tag)
        .order_by(size.desc(), _r.name, counted.c.tag)
        .limit(n)
    )
    return [UsageShare(f"{row[0]}:{row[1]}", int(row[2]), int(row[3])) for row in tx.execute(query)]


def _steps(within: Collection[int] | None = None) -> sa.CTE:
    """Return the edges from a manifest to those deleted with it: children and referrers."""
    down = (
        sa.select(_m.repository_id, _m.digest.label("parent"), _e.child_digest.label("child"))
        .join(manifest_edges, _e.manifest_id == _m.id)
        .where(_e.child_digest.is_not(None))
    )
    back = sa.select(_m.repository_id, _m.subject, _m.digest).where(_m.subject.is_not(None))
    if within is not None:
        down, back = (query.where(_m.repository_id.in_(within)) for query in (down, back))
    return down.union_all(back).cte("steps")


def measure_freed(tx: Transaction, gone: Collection[tuple[RepositoryName, Tag]]) -> Reclaimable:
    """Return the content that is reachable only from these tags.

    Manifests count if nothing else in their repository reaches them. Blobs count if nothing else in
    the registry reaches them.
    """
    wanted = sa.tuple_(_r.name, _t.name).in_([(name, str(tag)) for name, tag in gone])
    of_tags = sa.select(_t.repository_id, _t.name, _t.digest).join(
        repositories, _r.id == _t.repository_id
    )
    roots = of_tags.where(wanted).cte("roots")
    ids = list(tx.execute(sa.select(roots.c.repository_id).distinct()).scalars())
    steps = _steps(ids)
    reach = _close(sa.select(roots.c.repository_id, roots.c.digest), steps, "reach")
    in_reach = sa.select(reach.c.digest).where(
        reach.c.repository_id == _m.repository_id, reach.c.digest == _m.digest
    )
    other = of_tags.where(~wanted, _t.repository_id == _m.repository_id, _t.digest == _m.digest)
    # Manifests that have another tag or a hold, and manifests that these tags do not reach.
    staying = sa.select(_m.repository_id, _m.digest).where(
        _m.repository_id.in_(ids),
        sa.or_(
            ~in_reach.exists(),
            other.correlate(manifests).exists(),
            holds.is_held(tx, _m.repository_id, _m.digest),
        ),
    )
    kept = _close(staying, steps, "kept")
    is_kept = sa.select(kept.c.digest).where(
        kept.c.repository_id == _m.repository_id, kept.c.digest == _m.digest
    )
    going = (
        sa.select(_m.id, _m.size, _m.repository_id)
        .where(_m.repository_id.in_(ids), ~is_kept.exists())
        .cte("going")
    )
    number, own = tx.execute(sa.select(sa.func.count(), _total(going.c.size))).one()
    count, size = tx.execute(_list_freed(going)).one()
    return Reclaimable(number, int(own), count, int(size))


def _close(first: sa.Select[tuple[Any, Any]], steps: sa.CTE, name: str) -> sa.CTE:
    """Return the manifests of `first`, and all that the steps lead to."""
    found = first.cte(name, recursive=True)
    further = sa.select(found.c.repository_id, steps.c.child).join(
        steps,
        sa.and_(steps.c.repository_id == found.c.repository_id, steps.c.parent == found.c.digest),
    )
    return found.union(further)


def _list_freed(going: sa.CTE) -> sa.Select[tuple[int, Any]]:
    """Return the query for the number and bytes of blobs used only by deleted manifests."""
    mine = sa.select(_e.repository_id, _e.blob_digest).join(going, going.c.id == _e.manifest_id)
    named = mine.where(_e.blob_digest.is_not(None)).distinct().cte("named")
    held = sa.select(_e.blob_digest).where(
        _e.repository_id == named.c.repository_id,
        _e.blob_digest == named.c.blob_digest,
        _e.manifest_id.not_in(sa.select(going.c.id)),
    )
    loose = sa.select(named.c.blob_digest).where(~held.exists())
    links = sa.select(_l.digest, sa.func.count().label("links")).where(
        _l.digest.in_(sa.select(named.c.blob_digest))
    )
    all_links = links.group_by(_l.digest).cte("all_links")
    free = loose.cte("loose")
    freed = (
        sa.select(free.c.blob_digest)
        .join(all_links, all_links.c.digest == free.c.blob_digest)
        .group_by(free.c.blob_digest, all_links.c.links)
        .having(sa.func.count() == all_links.c.links)
    )
    return sa.select(sa.func.count(), _total(_b.size)).where(_b.digest.in_(freed))
